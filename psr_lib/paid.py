"""Answers of a paid service, on the disk as they come: nothing is lost, nothing is paid for twice.

One JSON line an answer, appended before it is used. The file lies beside the runs, so it serves
every preset and seed, a stage that runs again, and several runs at once.
"""

import fcntl
import json
from pathlib import Path
from threading import Lock
from typing import IO, Any

from psr_lib.records import json_line, writing


class Paid:
    """A file of answers by key; safe for several threads and processes.

    `unreadable` counts lines of no use: a kill in the middle of writing leaves one.
    """

    def __init__(self, path: Path | str):
        self.path, self.unreadable = Path(path), 0
        self._lock = Lock()
        self._known: dict[str, Any] = {}
        if self.path.is_file():
            with open(self.path, "rb") as file:
                for line in file:
                    self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            self._known[row["key"]] = row["value"]
        except (ValueError, KeyError, TypeError):
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
                file.write(b"\n" * _is_cut_off(file) + json_line({"key": key, "value": value}))
            self._known[key] = value


def _is_cut_off(file: IO[bytes]) -> bool:
    """Whether the file's last line has no end."""
    if not file.seek(0, 2):
        return False
    file.seek(-1, 2)
    return file.read(1) != b"\n"
