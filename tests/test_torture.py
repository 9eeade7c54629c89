"""What the kill harness rests on: what may differ between runs, where it strikes, what is left.

The harness itself (`make torture`) runs after these tests, as it takes minutes.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import same_runs
import torture
from conftest import PARAMETERS, ROOT, make_notebook
from processes import alive, below

from psr_lib import commands, manifest, progress, request


@pytest.fixture
def twins(finished, tmp_path):
    """A finished toy run and a copy of it."""
    repo, _ = finished
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        shutil.copytree(repo.run, folder)
    return folders


def change(path, edit):
    """Edit a JSON file."""
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def later(made):
    made.update(started="2030-01-01T00:00:00Z", wall_seconds=9.9, seal="0" * 64)


def other_ids(notebook):
    notebook["metadata"] = {"papermill": {"duration": 7}}
    for cell in notebook["cells"]:
        cell["id"], cell["metadata"] = "x", {"papermill": {"start_time": "now"}}


def stream(*lines):
    """A notebook's cell that printed these lines."""
    return {
        "cell_type": "code",
        "source": "",
        "outputs": [
            {"output_type": "stream", "name": "stdout", "text": [f"{line}\n" for line in lines]}
        ],
    }


def test_trees_may_have_ended_in_another_order(tmp_path):
    lines = [f'{{"place": {k}}}\n' for k in range(3)]
    for name, own in (("one", lines), ("other", lines[::-1]), ("less", lines[:2])):
        path = tmp_path / name / "smoke/seed0/making/trees.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(own))
    one = tmp_path / "one"
    assert same_runs.differences(one, tmp_path / "other") == []
    found = same_runs.differences(one, tmp_path / "less")
    assert found == ["smoke/seed0/making/trees.jsonl: differs"]


def test_the_kill_harness_takes_the_stages_of_the_chain():
    """CONTRIBUTING's settings are ones that the preset takes, with the chain as EFT's origin."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (asked,) = re.findall(r'make torture KILLS=\d+ SET="([^"]+)"', text)
    args = commands.make_parser().parse_args(["reproduce", "--preset", "smoke", "--set", asked])
    assert request.Request(args).preset.data.eft_from == "chain"


def test_times_ids_progress_and_locks_may_differ(twins):
    one, other = twins
    assert same_runs.differences(one, other) == []
    change(other / "psrlm/M2/ppd/manifest.json", later)
    change(other / "psrlm/M2/notebooks/04_step_dpo.ipynb", other_ids)
    for folder, seconds in ((one, "3.1"), (other, "12.45")):
        lines = f"{progress.MARK}SFT 3/9, 1:0{seconds[0]} left", f"seconds    {seconds}"
        change(folder / "psrlm/M2/notebooks/04_step_dpo.ipynb",
               lambda book, lines=lines: book["cells"].append(stream(*lines)))  # fmt: skip
        (folder / "psrlm/M2/MODEL_CARD.md").write_text(f"| rows | 7 |\n| seconds | {seconds} |\n")
        (folder / ".lock").write_text(seconds)
    change(
        other / "base/notebooks/00_base_model.ipynb",
        lambda book: book["cells"][0]["outputs"].append(stream(progress.MARK)["outputs"][0]),
    )
    assert same_runs.differences(one, other) == []
    (other / "psrlm/M2/MODEL_CARD.md").write_text("| rows | 8 |\n| seconds | 3.1 |\n")
    assert same_runs.differences(one, other) == ["psrlm/M2/MODEL_CARD.md: differs"]


CHANGES = {
    "psrlm/M2/ppd/ppd.jsonl": lambda path: path.write_text("other\n"),
    "psrlm/M2/ppd/manifest.json": lambda path: change(path, lambda made: made["tokens"].clear()),
    "psrlm/M2/notebooks/04_step_dpo.ipynb": lambda path: change(
        path, lambda book: book["cells"].append(stream("2.5 s, M2 solves 7"))
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_anything_else_is_a_difference(twins, name):
    one, other = twins
    CHANGES[name](other / name)
    assert same_runs.differences(one, other) == [f"{name}: differs"]


def test_a_file_too_many_or_too_few_is_a_difference(twins):
    one, other = twins
    (other / "data/x.part123").touch()
    (other / "psrlm/M2/ppd/ppd.jsonl").unlink()
    assert same_runs.differences(one, other) == [
        "psrlm/M2/ppd/ppd.jsonl: only in one", "data/x.part123: only in other",
    ]  # fmt: skip


def test_a_report_is_the_same_if_the_manifests_it_read_differ_in_time_alone(tmp_path):
    for name, seconds in (("one", 1.5), ("other", 2.25)):
        folder = tmp_path / name
        made = {"wall_seconds": seconds, "inputs": {}, "counts": {"pairs": 3}}
        (folder / "eval").mkdir(parents=True), (folder / "paper").mkdir()
        (folder / "eval" / manifest.NAME).write_text(json.dumps(made))
        read = {"run:eval/manifest.json": manifest.describe(folder / "eval" / manifest.NAME)}
        (folder / "paper" / manifest.NAME).write_text(json.dumps({"inputs": read}))
    assert same_runs.differences(tmp_path / "one", tmp_path / "other") == []


WORK = {"01_data_prep": 1.0, "02_init M1": 2.0, "03_search_judge M2": 9.0, "08_paper": 4.0}


def test_points_go_through_all_stages_with_every_victim():
    plan = torture.points(WORK, 40, 4, random.Random(1))
    assert plan == torture.points(WORK, 40, 4, random.Random(1))
    assert plan != torture.points(WORK, 40, 4, random.Random(2))
    stages = [point.stage for point in plan]
    assert stages == sorted(stages) and set(stages) == set(WORK)
    victims = Counter(point.victim for point in plan)
    assert victims == {**dict.fromkeys(torture.KILLS, 10), "SIGTERM": 2, "SIGINT": 2}
    assert all(0 <= point.share <= 1 for point in plan)
    assert Counter(stages).most_common(1)[0][0] == "03_search_judge M2"
    assert len(torture.points(WORK, 2, 0, random.Random(0))) == 2


# --- whoever ends the runner, nothing is left

BUSY = """
import os, time
from pathlib import Path
from psr_lib.engines import forks
from psr_lib.grading import Worker
def work(share, tick):
    while True:
        pass
workers = forks.Workers(1, work)
workers.children[0].ask(None)
grader = Worker()
grader.is_ready()
Path(place).write_text("ready")
time.sleep(600)
"""
RUNNER = """
import sys
from pathlib import Path
from psr_lib import commands, notebook_runner
book, out, place = map(Path, {paths!r})
commands.COMMANDS["toy"] = lambda args: notebook_runner.execute(book, out, {{"place": str(place)}})
sys.exit(commands.main(["toy"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_or_killed_runner_leaves_no_process(tmp_path, monkeypatch, number):
    monkeypatch.setenv("PSR_WARM_KERNELS", "0")
    names = [tmp_path / name for name in ("busy.ipynb", "out.ipynb", "ready")]
    make_notebook(names[0], BUSY, parameters=PARAMETERS.format(n=0) + '\nplace: str = ""')
    code = RUNNER.format(paths=list(map(str, names)))
    runner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for(names[2].is_file)
    family = alive([runner.pid, *below(runner.pid)])
    assert len(family) >= 4, "runner, kernel, worker, grader"
    runner.send_signal(number)
    _, errors = runner.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert runner.returncode == 130
        assert re.match("interrupted: .* goes on there", errors.splitlines()[-1])
    wait_for(lambda: not any(alive([pid]).get(pid) == start for pid, start in family.items()))
    assert not names[1].exists(), "a notebook that was cut short is not in its place"


def wait_for(what, seconds=60.0):
    """Wait until it is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.05)
