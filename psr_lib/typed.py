"""Numbers that were typed in: results may stand only where a program writes them.

In the README that is inside the generated blocks; stored notebooks hold none at all, neither in
their text nor in their code: its texts, and fractions such as 92.8 outside of the parameters.
Settings, versions and references are no results: code blocks, code spans that set something, links
and words such as `Python 3.11` are passed over.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from psr_lib import manifest
from psr_lib.manifest import code_cells

BLOCK = re.compile(r"<!-- made: \w+ -->.*?<!-- end -->", re.DOTALL)
SPAN = re.compile(r"(```.*?```|`[^`\n]*=[^`\n]*`)|`([^`\n]*)`", re.DOTALL)
PASSED = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$"  # code and formulas
    r"|\]\([^)]*\)|https?://\S+|arXiv \S+"  # references
    r"|\b[Ss]ections?\s+\d+(?:\.\d+)*(?:(?:,| and| to) \d+(?:\.\d+)*)*"  # places in the paper
    r"|\bPython \d+\.\d+(?:(?:,| and| or) \d+\.\d+)*|\bApache-\d+\.\d+"  # versions
    r"|\b\d+\.\d+\.\d+\b"
    r"|\b95 ?%",  # the level of every interval
    re.DOTALL,
)
RESULT = re.compile(
    r"\b\d[\d,]* (?:out )?of (?:the )?\d[\d,]*\b"  # 1,250 of 1,800
    r"|[+−-]?\b\d+\.\d+\b"
    r"|\b\d+ ?(?:%|per ?cent\b|points?\b|times\b|-?fold\b|×)"
    r"|\b\d{1,3}(?:,\d{3})+\b"
)
LAYOUT = frozenset({"xlim", "ylim", "figsize", "alpha", "lw"})  # how a figure is drawn


def in_readme(text: str) -> list[str]:
    """A line a number of the README that looks like a result and stands outside the blocks."""
    return [f"README.md: {found!r} is typed in; let a block write it" for found in loose(
        BLOCK.sub(" ", text))]  # fmt: skip


def loose(text: str) -> list[str]:
    """The numbers of a text that look like results; in its code spans too, as in `53.9 %`."""
    spans = " ".join(match[2] or "" for match in SPAN.finditer(text))
    return [match.group(0) for part in (text, spans)
            for match in RESULT.finditer(PASSED.sub(" ", part))]  # fmt: skip


def in_notebooks(folder: Path | None = None) -> list[str]:
    """The same for every stored notebook: its text, and the texts in its code."""
    found = []
    for path in sorted((folder or manifest.root() / "notebooks").glob("*.ipynb")):
        numbers = [n for part in (*_texts(path), *_strings(path)) for n in loose(part)]
        numbers += _fractions(path)
        found += [f"{path.name}: {number!r} is typed in; compute it" for number in numbers]
    return found


def _texts(path: Path) -> Iterator[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _strings(path: Path) -> Iterator[str]:
    """Texts in a notebook's code, formats such as `{x:.2f}` left out."""
    for tree in _trees(path):
        formats = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)
                   and node.format_spec for part in ast.walk(node.format_spec)}  # fmt: skip
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in formats:
                yield text


def _fractions(path: Path) -> list[str]:
    """Numbers such as 92.8 in a notebook's code, but for those that lay a figure out."""
    found = []
    for tree in _trees(path):
        drawn = {id(part) for node in ast.walk(tree) if isinstance(node, ast.keyword)
                 and node.arg in LAYOUT for part in ast.walk(node)}  # fmt: skip
        found += [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)
                  and isinstance(node.value, float) and id(node) not in drawn]  # fmt: skip
    return found


def _trees(path: Path) -> Iterator[ast.Module]:
    """The code cells but the parameters, without lines for the notebook itself."""
    for source, tagged in code_cells(path):
        lines = (line for line in source.split("\n") if not line.startswith(("%", "!")))
        yield ast.parse("\n".join(lines if not tagged else ()))
