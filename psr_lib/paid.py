"""Answers of a paid service, on the disk as they come: nothing is lost, nothing is paid for twice.

One JSON line an answer, appended before it is used. The file lies beside the runs, so it serves
every preset and seed, a stage that runs again, and several runs at once.
"""

import fcntl
from pathlib import Path
from threading import Lock
from typing import IO, Any

from psr_lib.records import read_summed, summed_line, writing


class Paid:
    """A file of answers by key; safe for several threads and processes.

    Each line ends in its hash, and a changed one is a PSRError that names it.
    `unreadable` counts lines of no use: a kill in the middle of writing leaves one.
    """

    def __init__(self, path: Path | str):
        self.path, self.unreadable = Path(path), 0
        self._lock = Lock()
        self._known: dict[str, Any] = {}
        if self.path.is_file():
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    self._read(line, f"{self.path}:{number}")

    def _read(self, line: bytes, where: str) -> None:
        row: Any = read_summed(line, where)
        try:
            self._known[row["key"]] = row["value"]
        except (KeyError, TypeError):
            self.unreadable += 1

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """The answer of that key, None if it was never paid for."""
        return self._known.get(key)

    def values(self) -> list[Any]:
        """All answers."""
        return list(self._known.values())

    def add(self, key: str, value: Any) -> None:
        """Write an answer down; raises PSRError where the disk takes it no more."""
        with self._lock, writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
                file.write(b"\n" * _is_cut_off(file) + summed_line({"key": key, "value": value}))
            self._known[key] = value


def _is_cut_off(file: IO[bytes]) -> bool:
    """Whether the file's last line has no end."""
    if not file.seek(0, 2):
        return False
    file.seek(-1, 2)
    return file.read(1) != b"\n"
