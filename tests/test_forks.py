"""Shares of a call in forked processes: order, errors, and nothing left behind."""

import os
import signal
import time

import pytest

from psr_lib.engines import forks
from psr_lib.engines.base import EngineError

pytestmark = pytest.mark.skipif(not forks.POSSIBLE, reason="forks are for Linux")


def test_every_share_is_done_in_a_process_of_its_own_and_counted():
    rows = []

    def work(share, tick):
        for _ in range(share):
            tick(1)
        return share, os.getpid()

    found = forks.in_forks([3, 0, 2000], work, rows.append)
    assert [share for share, _ in found] == [3, 0, 2000] and sum(rows) == 2003
    assert found[0][1] == os.getpid() and len({pid for _, pid in found}) == 3


def test_an_error_of_a_share_is_the_calls_error():
    def work(share, tick):
        if share:
            raise EngineError("no luck", {1: ["one"]})

    with pytest.raises(EngineError, match="no luck") as caught:
        forks.in_forks([0, 1], work, print)
    assert caught.value.finished == {1: ["one"]}


def test_a_process_that_dies_is_an_error():
    def work(share, tick):
        if share:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EngineError, match="one of its processes died"):
        forks.in_forks([0, 1], work, print)


def test_an_error_here_ends_the_others_at_once():
    children = []

    def work(share, tick):
        if share:
            time.sleep(60)
        raise ValueError("here")

    class Noted(forks.Child):
        def __init__(self, *args):
            super().__init__(*args)
            children.append(self.pid)

    before, own = forks.Child, time.monotonic()
    forks.Child = Noted
    try:
        with pytest.raises(ValueError, match="here"):
            forks.in_forks([0, 1, 2], work, print)
    finally:
        forks.Child = before
    assert time.monotonic() - own < 20 and len(children) == 2
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
