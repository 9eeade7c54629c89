"""Several requests under way at once. Threads, not asyncio: a notebook runs an event loop."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

Job = TypeVar("Job")
Found = TypeVar("Found")


def each(
    jobs: Iterable[Job], do: Callable[[Job], Found], keep: Callable[[Found], None], workers: int
) -> None:
    """Do the jobs, some at a time, and hand every result to `keep`, one by one.

    After the first failure no further job is begun; those under way are finished and kept, then the
    failure is raised.
    """
    stop, failure = Event(), None

    def unless_stopped(job: Job) -> tuple[Found] | None:
        try:
            return None if stop.is_set() else (do(job),)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(unless_stopped, job) for job in jobs]):
                if error := future.exception():
                    failure = failure or error
                elif found := future.result():
                    keep(*found)
        finally:
            stop.set()  # an interrupt, too, leaves nothing behind
    if failure:
        raise failure
