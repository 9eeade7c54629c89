"""Whole runs of preset smoke by the real runner, as users start them, for tests to read."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
from conftest import ROOT
from nbclient import NotebookClient

from psr_lib import manifest, presets
from psr_lib.notebook_runner import RUNNING
from psr_lib.run_dirs import RunDir

PRESET = presets.load("smoke")
# An hour back for each second, for whoever asks Python for the time of day: as sitecustomize.py.
CLOCK = """import time
_began, _first = time.monotonic(), time.time()
time.time = lambda: _first - 3600 * (time.monotonic() - _began)
"""


def start(folder, command, *args, **more):
    """The command line in a process of its own, its run in `folder`."""
    line = [sys.executable, "-m", "psr_lib.runs", command, "--preset", "smoke"]
    return popen([*line, "--runs-dir", str(folder), *args], ROOT, **more)


def popen(line, place, **more):
    """A process with the environment of a user's shell."""
    left_out = ("CI", "PSR_QUIET", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", RUNNING)
    kept = {k: v for k, v in os.environ.items() if k not in left_out} | more
    return subprocess.Popen(line, cwd=place, env=kept, encoding="utf-8",
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def make_in(place, *words, **more):
    """Make in a copy of this repository, by this interpreter."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("psr_lib", "notebooks", "data/tiny"):
        shutil.copytree(ROOT / name, place / name, ignore=ignore)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    line = ["make", "--no-print-directory", *words, "PRESET=smoke", f"CONDA={sys.executable}"]
    return popen(line, place, **{"PYTHONPATH": "", **more})


def ended(process):
    """What a started command printed, once it has ended."""
    out, errors = process.communicate(timeout=1200)
    return SimpleNamespace(code=process.returncode, out=out, errors=errors)


def run_to_m2(factory):
    """A run up to M2, in a folder of the asking file's own; made once for all that ask."""
    shared = factory.getbasetemp()  # of this process, where several share the tests
    made = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "run to M2"
    with open(f"{made}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            done = ended(start(made.with_suffix(".making"), "iteration", "--n", "2"))
            assert done.code == 0, done.errors
            made.with_suffix(".making").rename(made)
    own = factory.mktemp("runs") / "own"
    return RunDir("smoke", 0, shutil.copytree(made, own, ignore=shutil.ignore_patterns(".lock*")))


def files(folder):
    """Every file with its time stamp, the lock left out."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")
    return {(str(path), path.stat().st_mtime_ns) for path in found}


def machine_text(text, folder):
    """Where a text names a place of this machine other than the run's folder."""
    text = text.replace(str(folder), "")
    return [place for place in (str(ROOT), sys.prefix, str(Path.home()) + "/") if place in text]


def assert_well_executed(path, folder):
    """An executed notebook without errors, warnings and paths, with one figure."""
    text = path.read_text(encoding="utf-8")
    assert machine_text(text, folder) == [], path
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    cells = [c for c in cells if manifest.PLAY not in c["metadata"].get("tags", [])]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 1, "one figure, once"


def by_hand(name, runs, monkeypatch):
    """The notebook executed as in JupyterLab: its default parameters, but for the runs' folder."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv(RUNNING, raising=False)
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = cell.source.replace('"runs"', repr(str(runs)))
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return notebook
