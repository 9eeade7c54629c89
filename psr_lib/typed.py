"""Numbers that were typed in: results may stand only where a program writes them.

In the README that is inside the generated blocks; stored notebooks hold none at all, neither in
their text nor in the texts of their code. Settings, versions and references are no results: code
spans, code blocks, links and words such as `Python 3.11` are passed over.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from psr_lib import manifest
from psr_lib.manifest import code_cells

BLOCK = re.compile(r"<!-- made: \w+ -->.*?<!-- end -->", re.DOTALL)
PASSED = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$"  # code and formulas
    r"|\]\([^)]*\)|https?://\S+|arXiv \S+"  # references
    r"|\b[Ss]ections?\s+\d+(?:\.\d+)*(?:(?:,| and| to) \d+(?:\.\d+)*)*"  # places in the paper
    r"|\bPython \d+\.\d+(?:(?:,| and| or) \d+\.\d+)*|\bApache-\d+\.\d+"  # versions
    r"|\b\d+\.\d+\.\d+\b"
    r"|\b95 ?%",  # the level of every interval
    re.DOTALL,
)
RESULT = re.compile(r"[+−-]?\b\d+\.\d+\b|\b\d+ ?(?:%|per ?cent\b|points?\b)")


def in_readme(text: str) -> list[str]:
    """A line a number of the README that looks like a result and stands outside the blocks."""
    return [f"README.md: {found!r} is typed in; let a block write it" for found in loose(
        BLOCK.sub(" ", text))]  # fmt: skip


def loose(text: str) -> list[str]:
    """The numbers of a text that look like results."""
    return [match.group(0) for match in RESULT.finditer(PASSED.sub(" ", text))]


def in_notebooks(folder: Path | None = None) -> list[str]:
    """The same for every stored notebook: its text, and the texts in its code."""
    found = []
    for path in sorted((folder or manifest.root() / "notebooks").glob("*.ipynb")):
        numbers = [n for part in (*_texts(path), *_strings(path)) for n in loose(part)]
        found += [f"{path.name}: {number!r} is typed in; compute it" for number in numbers]
    return found


def _texts(path: Path) -> Iterator[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _strings(path: Path) -> Iterator[str]:
    """Texts in a notebook's code, formats such as `{x:.2f}` left out."""
    for source, tagged in code_cells(path):
        lines = (line for line in source.split("\n") if not line.startswith(("%", "!")))
        tree = ast.parse("\n".join(lines if not tagged else ()))
        formats = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)
                   and node.format_spec for part in ast.walk(node.format_spec)}  # fmt: skip
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in formats:
                yield text
