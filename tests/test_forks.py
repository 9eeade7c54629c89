"""Shares of a call in forked processes: order, errors, and nothing left behind."""

import os
import signal
import time

import pytest

from psr_lib.engines import forks
from psr_lib.engines.base import EngineError

pytestmark = pytest.mark.skipif(not forks.POSSIBLE, reason="forks are for Linux")


def in_forks(shares, work, tick):
    """One call of as many workers as there are shares; they must be gone after an error."""
    workers = forks.Workers(len(shares) - 1, work)
    pids = [child.pid for child in workers.children]
    try:
        return workers.run(work, shares, tick)
    except BaseException:
        assert not workers.children and not any(map(alive, pids))
        raise
    finally:
        workers.end()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_share_is_done_in_a_process_of_its_own_and_counted():
    rows = []

    def work(share, tick):
        for _ in range(share):
            tick(1)
        return share, os.getpid()

    found = in_forks([3, 0, 2000], work, rows.append)
    assert [share for share, _ in found] == [3, 0, 2000] and sum(rows) == 2003
    assert found[0][1] == os.getpid() and len({pid for _, pid in found}) == 3


def test_an_error_of_a_share_is_the_calls_error():
    def work(share, tick):
        if share:
            raise EngineError("no luck", {1: ["one"]})

    with pytest.raises(EngineError, match="no luck") as caught:
        in_forks([0, 1], work, print)
    assert caught.value.finished == {1: ["one"]}


def test_a_process_that_dies_is_an_error():
    def work(share, tick):
        if share:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EngineError, match="one of its processes died"):
        in_forks([0, 1], work, print)


def test_an_error_here_ends_the_others_at_once():
    def work(share, tick):
        if share:
            time.sleep(60)
        raise ValueError("here")

    start = time.monotonic()
    with pytest.raises(ValueError, match="here"):
        in_forks([0, 1, 2], work, print)
    assert time.monotonic() - start < 20


def test_the_same_processes_serve_call_after_call_and_fewer_shares_too():
    workers = forks.Workers(2, lambda share, tick: (share, os.getpid()))
    pids = [child.pid for child in workers.children]
    for shares in ([1, 2, 3], [4, 5], [6, 7, 8]):
        found = workers.run(lambda share, tick: (share, 0), shares, print)
        assert found == list(zip(shares, [0, *pids], strict=False))
    workers.end()
    assert not any(map(alive, pids))


def test_workers_end_with_the_process_that_forked_them():
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        workers = forks.Workers(1, lambda share, tick: share)
        os.write(writer, str(workers.children[0].pid).encode())
        os._exit(0)
    os.close(writer)
    worker = int(os.read(reader, 20))
    os.waitpid(parent, 0)
    until = time.monotonic() + 10
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


def test_what_processes_send_comes_as_it_is_found_and_their_results_at_the_end():
    def work(share, send):
        for k in range(share):
            send((share, k))
            time.sleep(0.01)
        return share, os.getpid()

    workers = forks.Workers(3, work)
    pids = [child.pid for child in workers.children]
    stream, found = workers.stream([3, 0, 200]), []
    while True:
        try:
            found.append(next(stream))
        except StopIteration as end:
            assert [share for share, _ in end.value] == [3, 0, 200]
            assert os.getpid() not in {pid for _, pid in end.value}
            break
    assert sorted(found) == [(3, k) for k in range(3)] + [(200, k) for k in range(200)]
    assert found.index((3, 2)) < found.index((200, 199))
    assert not any(map(alive, pids))


def test_a_stream_that_fails_keeps_what_came_before():
    def work(share, send):
        send(("sent", share))
        time.sleep(1 if share else 60)
        raise EngineError("no luck")

    workers, found = forks.Workers(2, work), []
    pids = [child.pid for child in workers.children]
    with pytest.raises(EngineError, match="no luck"):
        for item in workers.stream([0, 1]):
            found.append(item)
    assert sorted(found) == [("sent", 0), ("sent", 1)]
    assert not any(map(alive, pids))
