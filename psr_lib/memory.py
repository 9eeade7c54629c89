"""Results that take long, kept by what they were made from, so that a second call costs nothing.

The file carries a hash of what it holds: an edited one is forgotten.

>>> memory = Memory()
>>> memory.get(["t-SNE", 3], lambda: 7), memory.get(["t-SNE", 3], lambda: 8)
(7, 7)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psr_lib.records import PSRError, hash_json, read_json, write_json


class Memory:
    """JSON values by the hash of all they depend on; in a file where one is named.

    What was not asked for since the file was opened is left out when it is written again.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.made = path, 0
        self.used: dict[str, Any] = {}
        self.known: dict[str, Any] = _read(path)

    def get(self, made_from: Any, make: Callable[[], Any]) -> Any:
        """The value that was made from these JSON values, made now if it is not known."""
        key = hash_json(made_from)
        if key not in self.known:
            self.known[key] = make()
            self.made += 1
        self.used[key] = self.known[key]
        return self.used[key]

    def close(self) -> None:
        """Write what was used, if there is a file."""
        if self.path is not None:
            write_json(self.path, {"hash": hash_json(self.used), "values": self.used})


def _read(path: Path | None) -> dict[str, Any]:
    """What a file remembers; nothing if it is missing or damaged, since all can be made again."""
    try:
        found = read_json(path) if path is not None else {}
        return found["values"] if found["hash"] == hash_json(found["values"]) else {}
    except (PSRError, KeyError, TypeError):
        return {}
