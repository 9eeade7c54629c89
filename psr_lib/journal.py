"""Finished searches on the disk as they finish, so that a stage that was killed goes on.

One line a search with its hash, in the order in which they ended; read back in the order of their
numbers. The first line names what the searches were made from: a file of other parameters is begun
anew.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from psr_lib.records import (
    PSRError,
    Question,
    hash_json,
    json_line,
    read_summed,
    summed_line,
    writing,
)


class Trace(Protocol):
    """A finished search of any kind."""

    def to_row(self) -> dict[str, Any]:
        """The trace as one JSON row."""
        ...


class Questions(Protocol):
    """Questions that can be counted, and looped over as often as needed."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Question]: ...


class Journal:
    """An append-only file of numbered searches; `made_from` is any JSON value.

    It holds no search in memory, only where each begins in the file.
    """

    def __init__(self, path: Path | str, made_from: Any):
        self.path, self.count = Path(path), 0
        self._at = array("q")  # offset of each number's line, -1 where there is none
        self.path.parent.mkdir(parents=True, exist_ok=True)
        head = json_line({"made_from": hash_json(made_from)})
        end = self._scan(head) if self.path.is_file() else 0
        mode = "r+b" if self.path.is_file() else "w+b"
        self._file = open(self.path, mode)  # noqa: SIM115 - open as long as the journal
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._file.write(head)

    def _scan(self, head: bytes) -> int:
        """Note the lines that are there; where the last whole one ends, 0 if none is of use."""
        with open(self.path, "rb") as file:
            if file.readline() != head:
                return 0
            end = file.tell()
            for number, line in enumerate(file, start=2):
                place = _place(line, f"{self.path}:{number}")
                if place is None:  # cut off by the kill
                    break
                self._note(place, end)
                end += len(line)
        return end

    def _note(self, place: int, offset: int) -> None:
        self._at.extend([-1] * (place + 1 - len(self._at)))
        self.count += self._at[place] < 0
        self._at[place] = offset

    def left(self, questions: Iterable[Question]) -> Iterator[tuple[int, Question]]:
        """The numbered questions that have no search yet."""
        for place, question in enumerate(questions):
            if place >= len(self._at) or self._at[place] < 0:
                yield place, question

    def add(self, place: int, trace: Trace) -> None:
        """Write a finished search down; raises PSRError where the disk takes it no more."""
        end = self._file.seek(0, 2)
        try:
            with writing(self.path):
                self._file.write(summed_line({"place": place, "trace": trace.to_row()}))
                self._file.flush()
        except PSRError:
            with suppress(OSError):  # what could not be written must not be written later
                self.close()
            raise
        self._note(place, end)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The traces' rows in the order of the questions."""
        for offset in self._at:
            if offset >= 0:
                self._file.seek(offset)
                yield json.loads(self._file.readline())["trace"]

    def close(self) -> None:
        """Close the file; it stays where it is."""
        self._file.close()


def search_into(
    journal: Journal,
    questions: Questions,
    search: Callable[[Iterable[tuple[int, Question]]], Iterator[tuple[int, Trace]]],
    progress: Callable[[int, Any], None] = lambda done, trace: None,
) -> None:
    """Search the questions that the journal lacks. Raises PSRError that says how many it has."""
    total = len(questions)
    try:
        for place, trace in search(journal.left(questions)):
            journal.add(place, trace)
            progress(journal.count, trace)
    except PSRError as error:
        kept = f"{journal.count} of {total} searches are kept and the next call goes on from there"
        raise PSRError(f"{error}; {kept}") from error


def _place(line: bytes, where: str) -> int | None:
    row: Any = read_summed(line, where) if line.endswith(b"\n") else None
    try:
        return row["place"]
    except (KeyError, TypeError):
        return None
