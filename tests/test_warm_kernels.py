"""Kernels that are forks of a process with the large libraries: the same kernels, only sooner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_notebook

from psr_lib import notebook_runner, warm_kernels
from psr_lib.notebook_runner import NotebookFailed
from psr_lib.records import read_json

pytestmark = pytest.mark.skipif(not warm_kernels.possible(), reason="kernels start from nothing")
PARAMETERS = "place: str = 'x'  # file to write"
RECORD = """
import json, multiprocessing, os, sys
from pathlib import Path
def answer():
    raise SystemExit(7)
process = multiprocessing.get_context("fork").Process(target=answer)
process.start()
process.join()
found = dict(
    pid=os.getpid(), parent=os.getppid(), folder=os.getcwd(), path=sys.path, child=process.exitcode,
    imported=BEFORE, stage=os.environ["PSR_RUNNER"], main=__name__, arguments=sys.argv,
)
Path(place).write_text(json.dumps(found))
"""
BEFORE = "import sys; BEFORE = [name for name in sys.modules if name.count('.') < 2]"


def run(folder, *cells):
    """What the cells wrote to `place`, run as a notebook of that folder."""
    notebook = make_notebook(folder / "toy.ipynb", *cells, parameters=PARAMETERS)
    place = folder / "found.json"
    notebook_runner.execute(notebook, folder / "out" / "toy.ipynb", {"place": str(place)})
    return read_json(place)


def ended(pid, seconds=20.0):
    """Whether the process is gone, or about to be, within this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_kernel_has_the_libraries_and_none_of_ours(tmp_path):
    found = run(tmp_path, BEFORE, RECORD)
    assert {"torch", "trl", "pandas"} <= set(found["imported"])
    ours = [name for name in found["imported"] if name.startswith("psr_lib.")]
    assert ours == ["psr_lib.warm_kernels"]
    assert found["parent"] != os.getpid()
    assert ended(found["pid"])


def test_a_kernel_is_like_any_other(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    warm = run(tmp_path / "a", BEFORE, RECORD)
    monkeypatch.setenv(warm_kernels.SWITCH, "0")
    cold = run(tmp_path / "a", BEFORE, RECORD)
    assert "torch" not in cold["imported"]
    for name in ("folder", "stage", "main"):
        assert warm[name] == cold[name], name
    assert warm["child"] == cold["child"] == 7  # it may start processes of its own
    assert [Path(part).name for part in warm["arguments"][:2]] == ["ipykernel_launcher", "-f"]
    shared = [path for path in cold["path"] if path in warm["path"]]
    assert [path for path in warm["path"] if path in shared] == shared  # the same order
    assert str(tmp_path) in shared


def test_each_kernel_starts_from_the_same_state(tmp_path):
    first = "import torch, json; torch.psr_was_here = getattr(torch, 'psr_was_here', 0) + 1"
    write = "from pathlib import Path; Path(place).write_text(json.dumps(torch.psr_was_here))"
    assert [run(tmp_path, first, write), run(tmp_path, first, write)] == [1, 1]


def test_a_kernel_that_dies_is_one_line(tmp_path):
    with pytest.raises(NotebookFailed, match="its kernel died"):
        run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookFailed, match="ValueError: bad luck"):
        run(tmp_path, "raise ValueError('bad luck')")


@pytest.mark.slow
def test_a_kernel_ends_with_a_runner_that_is_killed(tmp_path):
    cell = "import os, time; from pathlib import Path; Path(place).write_text(str(os.getpid()))"
    make_notebook(tmp_path / "toy.ipynb", cell, "time.sleep(600)", parameters=PARAMETERS)
    place = tmp_path / "pid"
    line = (
        "from pathlib import Path; from psr_lib import notebook_runner; "
        f"notebook_runner.execute(Path({str(tmp_path / 'toy.ipynb')!r}), "
        f"Path({str(tmp_path / 'out.ipynb')!r}), {{'place': {str(place)!r}}})"
    )
    runner = subprocess.Popen([sys.executable, "-c", line])
    until = time.monotonic() + 120
    while not (place.exists() and place.read_text()) and time.monotonic() < until:
        assert runner.poll() is None
        time.sleep(0.1)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert ended(int(place.read_text()))


def test_not_where_there_is_an_accelerator_or_where_it_is_switched_off(tmp_path, monkeypatch):
    assert warm_kernels.possible(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not warm_kernels.possible(tmp_path)
    monkeypatch.setenv(warm_kernels.SWITCH, "0")
    assert not warm_kernels.possible()
