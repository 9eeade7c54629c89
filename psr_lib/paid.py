"""Answers of a paid service, on the disk as they come: nothing is lost, nothing is paid for twice.

One JSON line an answer, appended; a line that a kill cut off is left out. The file lies beside the
runs, so it serves every seed and preset, and a stage that runs again.
"""

import json
from pathlib import Path
from threading import Lock
from typing import Any

from psr_lib.records import json_line


class Paid:
    """A file of answers by key; safe for several threads."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock, self._known = Lock(), {}
        if self.path.is_file():
            self._read(self.path.read_bytes())

    def _read(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            try:
                row = json.loads(line)
                self._known[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """The answer of that key, None if it was never paid for."""
        return self._known.get(key)

    def add(self, key: str, value: Any) -> None:
        """Write an answer down before it is used."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            cut_off = self.path.is_file() and not _ends_well(self.path)
            with open(self.path, "ab") as file:
                file.write(b"\n" * cut_off + json_line({"key": key, "value": value}))
            self._known[key] = value


def _ends_well(path: Path) -> bool:
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
