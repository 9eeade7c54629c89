"""What vLLM prints, kept out of notebooks and terminals: hundreds of lines a start.

Its processes inherit the file descriptors of the one that starts them, and its logger keeps the
stream that it found, so both are a file while it starts, and go on writing to that. Where it fails
the cause stands there and nowhere else. VLLM_LOGGING_LEVEL=INFO (or DEBUG) shows all as it comes.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import IO

LEVEL, USUAL = "VLLM_LOGGING_LEVEL", "WARNING"
ERROR = re.compile(r"(\w+(?:Error|Exception): [^\n]*\S)")
VAGUE = re.compile(r"root cause|process died|EngineCore encountered")  # says where to look
LONGEST = 1 << 20  # bytes that are looked through, from the end


@cache
def _file() -> IO[str]:
    """One for this process, and gone with it and its children; it has no name."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", buffering=1)


@contextmanager
def aside() -> Iterator[None]:
    """Within the block what is printed goes to the file, unless the user asks for vLLM's log."""
    if os.environ.get(LEVEL, USUAL) != USUAL:
        yield
        return
    with ExitStack() as back:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            kept = os.dup(number)
            back.callback(os.close, kept)
            back.callback(os.dup2, kept, number)
            os.dup2(_file().fileno(), number)
        back.enter_context(redirect_stdout(_file()))
        back.enter_context(redirect_stderr(_file()))
        yield


def place() -> int:
    """Bytes that are there; what is printed from now on stands after them."""
    return os.fstat(_file().fileno()).st_size


def since(start: int) -> str:
    """What stands after a place, the end of it where that is long."""
    start = max(start, place() - LONGEST)
    return os.pread(_file().fileno(), place() - start, start).decode(errors="replace")


def reason(error: BaseException, start: int) -> str:
    """What the error says; where that only says where to look, the last error that was printed."""
    told = [line for line in ERROR.findall(since(start)) if not VAGUE.search(line)]
    return told[-1] if VAGUE.search(str(error)) and told else str(error) or type(error).__name__
