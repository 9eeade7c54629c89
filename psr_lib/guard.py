"""An engine that breaks while it works: its error as one line that says what was being done."""

from collections.abc import Iterator
from contextlib import contextmanager

from psr_lib.records import PSRError


@contextmanager
def engine_call(doing: str) -> Iterator[None]:
    """Turn what an engine raises within the block into a PSRError of one line."""
    try:
        yield
    except PSRError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
        raise PSRError(f"the engine failed while {doing}: {said}") from error
