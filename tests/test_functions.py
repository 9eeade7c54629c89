"""Functions stay small: half of psr_lib's have at most ten lines, nine in ten at most thirty."""

import ast
from statistics import median

import pytest
from conftest import ROOT

LIBRARY = ROOT / "psr_lib"
HALF, MOST = 10, 30  # lines, the signature and the docstring included


def lengths(library=LIBRARY):
    """(lines, `file: function`) of every function of a folder, the longest first."""
    found = []
    for path in sorted(library.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                found.append((lines, f"{path.relative_to(library)}: {node.name}"))
    return sorted(found, reverse=True)


def check(found):
    """Fail where the functions are too long."""
    lines = [n for n, _ in found]
    assert median(lines) <= HALF
    assert sum(n <= MOST for n in lines) >= 0.9 * len(lines)


def test_functions_are_short():
    found = lengths()
    print(f"{len(found)} functions, median {median(n for n, _ in found):g} lines; the longest:")
    print("\n".join(f"{n:4} {name}" for n, name in found[:20]))
    assert len(found) > 1000
    check(found)


@pytest.mark.parametrize("body", [HALF, MOST])
def test_long_functions_are_found(tmp_path, body):
    short = [f"def short{k}():\n    pass\n" for k in range(9)]
    long = [f"def long{k}():\n" + "    pass\n" * body for k in range(10 if body == HALF else 2)]
    (tmp_path / "code.py").write_text("\n".join(short + long))
    with pytest.raises(AssertionError):
        check(lengths(tmp_path))
