"""Are two runs the same, byte for byte? What is left out is named here and nowhere else.

- of a manifest: when it was made, how long it took, its seal over both, and, where its stage read
  other manifests, their hashes and sizes, which hold the same;
- of an executed notebook: metadata, the ids of cells, progress lines, and numbers of seconds;
- of a card: the seconds that its stage took;
- of the chain's journal of trees: the order in which they ended;
- lock files, which say who worked here last.

All other files have to be there in both, with the same bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from psr_lib import manifest, progress
from psr_lib.locks import RUN, STAGE

TIMES = ("started", "wall_seconds", "seal")
SECONDS = re.compile(r"(\bseconds\b(?:<[^>]*>|\s)*)[\d.]+")  # as text, or as a row of an HTML table
CARDS = ("MODEL_CARD.md", "DATA_CARD.md")
JOURNAL = ("making", "trees.jsonl")  # read in the order of the questions, wherever they stand
CARD_SECONDS = re.compile(rb"^(\| seconds \| )[\d.]+", re.MULTILINE)
PROGRESS = re.compile(rf"^{re.escape(progress.MARK)}.*\n?", re.MULTILINE)


def differences(one: Path, other: Path) -> list[str]:
    """A line a file that is missing on one side or differs."""
    names = [contents(folder) for folder in (one, other)]
    lines = [f"{name}: only in {folder.name}" for folder, own, its in
             ((one, *names), (other, *names[::-1])) for name in sorted(own - its)]  # fmt: skip
    return lines + [f"{name}: differs" for name in sorted(names[0] & names[1])
                    if essence(one / name) != essence(other / name)]  # fmt: skip


def contents(folder: Path) -> set[str]:
    """Every file below a folder, locks left out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files if path.name not in (RUN, STAGE)}


def essence(path: Path) -> bytes:
    """A file's bytes without what may differ."""
    if path.name == manifest.NAME:
        return _manifest(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".ipynb":
        return _notebook(json.loads(path.read_text(encoding="utf-8")))
    if path.parts[-2:] == JOURNAL:
        return b"".join(sorted(path.read_bytes().splitlines(keepends=True)))
    if path.name in CARDS:
        return CARD_SECONDS.sub(rb"\1-", path.read_bytes())
    return path.read_bytes()


def _manifest(found: dict) -> bytes:
    kept = {name: value for name, value in found.items() if name not in TIMES}
    kept["inputs"] = {name: {} if name.endswith(f"/{manifest.NAME}") else entry
                      for name, entry in found["inputs"].items()}  # fmt: skip
    return json.dumps(kept).encode()


def _notebook(found: dict) -> bytes:
    cells = [{"type": cell["cell_type"], "source": cell["source"],
              "outputs": list(_outputs(cell.get("outputs", ())))}
             for cell in found["cells"]]  # fmt: skip
    return json.dumps(cells).encode()


def _outputs(found: Iterable[dict]) -> Iterator[dict]:
    """A cell's outputs; one that printed progress and nothing else is none."""
    for kept in map(_output, found):
        if kept.get("text") != "":
            yield kept


def _output(output: dict) -> dict:
    kept = {name: value for name, value in output.items() if name != "metadata"}
    if "text" in kept:
        kept["text"] = _timeless("".join(kept["text"]))
    if "data" in kept:
        kept["data"] = {kind: _timeless("".join(value)) if isinstance(value, str | list) else value
                        for kind, value in kept["data"].items()}  # fmt: skip
    return kept


def _timeless(text: str) -> str:
    """Without progress and seconds; a column is as wide as its widest number, so spaces too."""
    return re.sub(r"[ \n]+", " ", SECONDS.sub(r"\1-", PROGRESS.sub("", text)))
