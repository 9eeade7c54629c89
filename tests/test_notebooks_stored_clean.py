"""Notebooks are stored without outputs, name their kernel and parameters, and hold no machinery."""

import ast

import nbformat
import pytest
from conftest import PARAMETERS, ROOT, make_notebook

from psr_lib import notebook_runner
from psr_lib.manifest import STANDARD
from psr_lib.methods import STAGES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST = 5  # lines of a function's body


def faults(path):
    """What is wrong with a stored notebook, as texts."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [f"cell {i} holds outputs" for i, cell in enumerate(code) if cell.outputs]
    found += [f"cell {i} holds a count" for i, cell in enumerate(code) if cell.execution_count]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("kernel is not python3")
    if "papermill" in notebook.metadata:
        found.append("holds papermill's metadata")
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        found.append(f"has {len(tagged)} parameters cells")
    return found + [fault for cell in code for fault in machinery(cell.source)]


def machinery(source):
    """Classes, and functions too long for a notebook."""
    lines = (line for line in source.split("\n") if not line.startswith(("%", "!")))
    found = []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ClassDef):
            found.append(f"defines class {node.name}")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.body[0].lineno + 1
            if length > LONGEST:
                found.append(f"function {node.name} has {length} lines")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebooks_are_clean(path):
    assert faults(path) == []


@pytest.mark.parametrize("name", STAGES)
def test_stage_notebooks_take_the_standard_parameters(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    found = notebook_runner.parameters(path)
    assert set(STANDARD) <= set(found)
    assert found["preset"].default == "'smoke'" and found["runs_dir"].default == "'runs'"
    assert all(parameter.help for parameter in found.values()), "each parameter has a comment"


def test_every_fault_is_found(tmp_path):
    long = "def f():\n" + "    x = 1\n" * 6
    path = make_notebook(tmp_path / "bad.ipynb", f"class A: pass\n{long}")
    notebook = nbformat.read(path, as_version=4)
    cell = notebook.cells[0]
    cell.execution_count = 3
    cell.outputs = [nbformat.v4.new_output("stream", text="out")]
    notebook.metadata["kernelspec"]["name"] = "mine"
    notebook.metadata["papermill"] = {}
    path.write_text(nbformat.writes(notebook))
    assert len(faults(path)) == 7
    good = make_notebook(tmp_path / "good.ipynb", "1", parameters=PARAMETERS.format(n=1))
    assert faults(good) == []
