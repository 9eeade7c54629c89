"""What a kill leaves in a run, what `make status` shows of it, and one stage removed."""

import errno
import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from psr_lib import leftovers, locks, manifest, overview, targets
from psr_lib.methods import DATA, DPO, EVALUATE, INIT, SEARCH
from psr_lib.presets import load
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir, run_of
from psr_lib.stages import State
from psr_lib.upkeep import stage_named

M2 = "runs/smoke/seed0/psrlm/M2"


def files(repo):
    """Every file of the run, locks left out."""
    found = (path for path in repo.run.rglob("*") if path.is_file())
    return {str(path.relative_to(repo.run)) for path in found if ".lock" not in path.name}


# --- what a kill leaves


def test_a_make_removes_what_nobody_can_use_and_nothing_else(repo):
    before = files(repo)
    journal = repo.write("runs/smoke/seed0/psrlm/M3/ppd/traces.jsonl.gz.part", "{}\n")
    mine = repo.write("runs/smoke/seed0/notes.old1", "mine")
    for name in ("ppd/ppd.jsonl.part123", "ppd/traces.jsonl.gz.part", "ppd/manifest.before.json",
                 "model.part77/model.safetensors", "model.part-old77/config.json"):  # fmt: skip
        path = repo.write(f"{M2}/{name}", "half")
        os.utime(path, (0, 0))  # the manifest was written later
    assert "nothing to do" in repo.call("iteration", "--n", "2").stdout
    kept = {str(path.relative_to(repo.run)) for path in (journal, mine)}
    assert files(repo) == before | kept


def test_a_notebook_that_was_cut_short_runs_its_stage_again(repo):
    part = repo.run / "psrlm/M2/notebooks/04_step_dpo.part.ipynb"
    whole = repo.run / "psrlm/M2/notebooks/04_step_dpo.ipynb"
    found = json.loads(whole.read_text())
    found["cells"][-1]["metadata"]["papermill"]["status"] = "running"
    for text in (json.dumps(found), json.dumps(found)[:300]):
        part.write_text(text)
        assert repo.states()["04_step_dpo M2"] == "stale    its executed notebook was cut short"
    done = repo.call("iteration", "--n", "2")
    assert "04_step_dpo M2: running (its executed notebook was cut short)" in done.stdout
    assert "05_evaluate M2: up to date" in done.stdout, "the same bytes came out"
    assert whole.is_file() and not part.exists()


def test_a_whole_notebook_is_moved_to_its_place(repo):
    part = repo.run / "psrlm/M2/notebooks/04_step_dpo.part.ipynb"
    whole = repo.run / "psrlm/M2/notebooks/04_step_dpo.ipynb"
    text = whole.read_text()
    whole.rename(part)
    assert "nothing to do" in repo.call("iteration", "--n", "2").stdout
    assert whole.read_text() == text and not part.exists()


def test_a_stage_made_by_hand_needs_no_executed_notebook(repo):
    path = repo.run / "psrlm/M2/model/manifest.json"
    found = json.loads(path.read_text())
    del found["seal"]
    path.write_text(json.dumps(manifest.sealed({**found, "by_hand": True})))
    repo.write(f"{M2}/notebooks/04_step_dpo.part.ipynb", "half")
    assert repo.states()["04_step_dpo M2"] == "done"


def test_a_stage_that_was_opened_and_left_is_read_as_before(repo):
    folder = repo.run / "psrlm/M1/model"
    before = (folder / manifest.NAME).read_text()
    manifest.set_aside(folder)
    assert repo.states()["02_init M1"] == "done"
    done = repo.call("iteration", "--n", "2", "--set", "search.width=5")
    assert done.returncode == 0 and "02_init M1: up to date" in done.stdout, done.stderr
    assert (folder / manifest.NAME).read_text() == before
    assert not (folder / manifest.BEFORE).exists()


def test_finished_searches_of_a_stage_that_runs_again_outlive_every_sweep(repo):
    folder = repo.run / "psrlm/M2/ppd"
    manifest.set_aside(folder)
    journal = repo.write(f"{M2}/ppd/traces.jsonl.gz.part", "{}\n{}\n")
    for _ in range(2):  # a make that comes to another stage first, and is killed there
        leftovers.sweep(RunDir("smoke", 0, repo.root / "runs"))
        assert journal.read_text() == "{}\n{}\n"
    assert (folder / manifest.NAME).is_file(), "the outputs of before are whole"


def test_a_notebook_that_never_finishes_its_stage_is_a_failure(repo):
    path = repo.root / "notebooks/04_step_dpo.ipynb"
    path.write_text(path.read_text().replace("stage.finish()", "stage.folder"))
    path.write_text(path.read_text().replace("toy.model(stage.folder, stage.preset.dpo.beta)", ""))
    done = repo.call("iteration", "--n", "2")
    assert done.returncode == 1 and "ended without stage.finish()" in done.stderr


# --- make status


def page(repo, *arguments):
    """What `status` prints: its table by method and model, and the other lines."""
    done = repo.call("status", *arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    cut = next(k for k, line in enumerate(lines) if line.startswith("all "))
    cells = {tuple(line.split()[:2]): line.split()[2:] for line in lines[1:cut]}
    return cells, lines[0], lines[cut:]


def test_status_shows_every_method_and_model_with_time_and_tokens(repo):
    cells, head, rest = page(repo)
    assert " ".join(head.split()[1:]) == "data pairs model evaluation judge lab minutes M tokens"
    assert cells["shared", "M0"][:5] == ["done", "-", "done", "missing", "-"]
    assert cells["psrlm", "M1"][:5] == ["-", "-", "done", "missing", "-"]
    assert all(float(row[5]) < 10 and row[6] == "0.00" for row in cells.values())
    assert cells["psrlm", "M2"][:5] == ["-", "done", "done", "done", "-"]
    assert cells["psrlm", "M4"][:5] == ["-", "missing", "missing", "missing", "-"]
    assert rest[0].split()[:5] == ["all", "6", "of", "14", "done"]
    assert rest[1:] == ["06_steps: -", "08_paper: -"]


def test_status_of_several_seeds_is_one_page_each_and_their_tables(repo):
    done = repo.call("status", "--seeds", "0 1")
    assert done.returncode == 0, done.stderr
    heads = [line.split()[0] for line in done.stdout.splitlines() if "M tokens" in line]
    assert heads == ["runs/smoke/seed0", "runs/smoke/seed1"]
    counts = [line.split()[1:5] for line in done.stdout.splitlines() if line.startswith("all ")]
    assert counts == [["6", "of", "14", "done"], ["0", "of", "14", "done"]]
    assert done.stdout.splitlines()[-1] == "runs/smoke/seeds0-1 08_paper: -"


def test_status_says_what_is_stale_damaged_and_partial_and_why(repo):
    repo.write("runs/smoke/seed0/psrlm/M3/ppd/traces.jsonl.gz.part", "{}\n{}\n{}\n{half")
    repo.write("runs/smoke/seed0/random-judge/M2/model/config.json", "{}")
    repo.write(f"{M2}/ppd/ppd.jsonl", "edited")
    cells, _, rest = page(repo, "--set", "eval.max_tokens=99")
    assert cells["psrlm", "M3"][1] == "partial" and cells["psrlm", "M2"][1] == "damaged"
    assert cells["psrlm", "M2"][2:4] == ["stale", "stale"]
    assert cells["random-judge", "M2"][:3] == ["-", "missing", "partial"]
    assert ("random-judge", "M1") not in cells, "a control starts from psrlm's M1"
    told = {line[:38].strip(): line[38:].strip() for line in rest if len(line) > 38}
    assert told["03_search_judge M3"].startswith("partial  2 searches are kept, the same command")
    assert told["05_evaluate M2"] == "stale    eval.max_tokens 512 -> 99"
    assert told["04_step_dpo random-judge M2"] == "partial  cut short, it starts again"
    assert "ppd.jsonl changed after it was written: 6 bytes" in told["03_search_judge M2"]


def test_status_adds_up_the_cost_of_a_models_stages(tmp_path):
    run = RunDir("smoke", 0, tmp_path)
    for name, seconds, tokens in ((SEARCH, 90, 400_000), (DPO, 30, 0), (EVALUATE, 60, 100_000)):
        folder = run.folder(Key(name, "psrlm", 2))
        folder.mkdir(parents=True)
        made = {
            "format": 1,
            "status": "complete",
            "outputs": {},
            "inputs": {},
            "code": {},
            "params": {},
            "wall_seconds": seconds,
            "tokens": {"generated": tokens, "judged": 0},
        }
        (folder / manifest.NAME).write_text(json.dumps(made))
    lines = overview.page(run, load("smoke"), ["psrlm"])
    row = next(line.split() for line in lines if line.startswith("psrlm              M2"))
    assert row[3:6] == ["stale", "stale", "stale"] and row[-2:] == ["3.0", "0.50"]
    total = next(line for line in lines if line.startswith("all "))
    assert total.split()[1:4] == ["0", "of", "14"] and total.split()[-2:] == ["3.0", "0.50"]


def test_every_method_and_stage_has_its_place():
    rows = list(overview.rows(["psrlm", "srlm", "sft-chosen", "reference"], 3))
    places = {(row.method, row.model): row.keys for row in rows}
    assert places["srlm", "M1"][0] == Key("01_data_prep", "srlm")
    assert places["psrlm", "M1"][2] == Key(INIT, "psrlm", 1)
    assert places["sft-chosen", "M2"][1] is None and ("sft-chosen", "M1") not in places
    assert places["reference", "API"][3] == Key(EVALUATE, "reference")
    keys = [key for row in rows for key in row.keys if key]
    assert len(keys) == len(set(keys))


# --- make clean-stage


def test_clean_stage_removes_one_stage_and_says_what_was_made_from_it(repo):
    before = files(repo)
    done = repo.call("clean-stage", "--stage", "03", "--n", "2")
    assert done.returncode == 0, done.stderr
    gone = {"psrlm/M2/ppd/ppd.jsonl", "psrlm/M2/ppd/manifest.json",
            "psrlm/M2/notebooks/03_search_judge.ipynb"}  # fmt: skip
    assert before - files(repo) == gone and files(repo) <= before
    assert "removed 03_search_judge M2: 3 files of runs/smoke/seed0/psrlm/M2/ppd" in done.stdout
    assert "byte for byte the same: 05_evaluate M2, 04_step_dpo M2" in done.stdout
    states = repo.states()
    assert states["03_search_judge M2"].startswith("missing")
    assert states["04_step_dpo M2"] == "stale    run:psrlm/M2/ppd/ppd.jsonl changed"
    again = repo.call("iteration", "--n", "2")
    assert "03_search_judge M2: running (no complete result yet)" in again.stdout
    assert "04_step_dpo M2: up to date" in again.stdout and files(repo) == before


def test_clean_stage_leaves_what_others_keep_in_the_folder(repo):
    other = repo.write("runs/smoke/seed0/base/eval/accuracy.csv", "of another stage")
    done = repo.call("clean-stage", "--stage", "base_model")
    assert "nothing else was made from it" in done.stdout
    assert other.is_file() and list((repo.run / "base").iterdir()) == [other.parent]
    repo.call("clean-stage", "--stage", "05", "--n", "0")
    assert not (repo.run / "base").exists(), "nor an empty folder"


def test_clean_stage_takes_the_adapter_and_clears_a_damaged_manifest(repo):
    repo.write(f"{M2}/adapter/adapter_config.json", "{}")
    repo.write(f"{M2}/model/manifest.json", "{half")
    assert repo.call("iteration", "--n", "2").returncode == 2
    assert repo.call("clean-stage", "--stage", "04", "--n", "2").returncode == 0
    assert not (repo.root / M2 / "model").exists() and not (repo.root / M2 / "adapter").exists()


def test_clean_stage_takes_the_cards_of_the_model(repo):
    cards = {f"psrlm/M2/{name}_CARD.md" for name in ("MODEL", "DATA")}
    assert cards <= files(repo)
    assert repo.call("clean-stage", "--stage", "05", "--n", "2").returncode == 0
    assert cards <= files(repo), "they are the model's"
    assert repo.call("clean-stage", "--stage", "04", "--n", "2").returncode == 0
    assert not cards & files(repo)


def test_what_takes_long_belongs_to_the_data_that_all_methods_share(tmp_path, monkeypatch):
    run, forgot = RunDir("smoke", 0, tmp_path), []
    (run.making / "prm").mkdir(parents=True)
    (run.making / "prm" / "made_from.json").touch()
    monkeypatch.setattr(targets.stages, "make_anew", forgot.append)
    monkeypatch.setattr(targets, "stage_state", lambda *_: State("current"))
    monkeypatch.setattr(targets, "_execute", lambda *_: None)
    request = SimpleNamespace(run=run, preset=load("smoke"), force=True)
    for key, wanted in ((Key(DATA, "srlm"), False), (Key(DATA), True)):
        assert bool(leftovers.work_kept(run, key)) == wanted
        assert targets._step(request, [key], True, {})
        assert bool(forgot) == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "STAGE=: there is no such stage; write for example: make clean-stage STAGE=03 N=2"),
        (["--stage", "03_serch_judge"], "did you mean '03_search_judge'"),
        (["--stage", "05"], "N is missing: 05_evaluate of which model?"),
        (["--stage", "03", "--n", "1"], "there is no M1 here; take iteration 2 to 4"),
        (["--stage", "03", "--n", "4"], "03_search_judge M4: there is nothing in runs/smoke"),
    ],
)
def test_clean_stage_refuses_in_one_line_and_removes_nothing(repo, arguments, words):
    before = files(repo)
    done = repo.call("clean-stage", *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert files(repo) == before


def test_a_stage_has_a_number_and_two_names():
    assert {stage_named(word, "2") for word in ("04", "step_dpo", "04_step_dpo")} == {DPO}


# --- two at once

HOLDER = """
import os, sys, time
from psr_lib import locks
from psr_lib.run_dirs import RunDir
run = RunDir("smoke", 0, {root!r})
locks.{function}(run, {doing!r})
print("held", flush=True)
time.sleep({seconds})
os._exit(0)
"""


def holder(repo, function, seconds, doing="a test"):
    """A process that holds the run for a while."""
    root = str(repo.root / "runs")
    code = HOLDER.format(root=root, function=function, seconds=seconds, doing=doing)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env=repo.environment(PYTHONPATH=str(repo.root)))  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_make_waits_for_the_kernel_of_one_that_was_killed(repo):
    with holder(repo, "lock_stage", 2.0) as kernel:
        done = repo.call("iteration", "--n", "2")
        assert kernel.poll() == 0, "it did not wait"
    assert done.returncode == 0 and "nothing to do" in done.stdout


def test_status_tells_which_stage_is_at_work(repo):
    assert repo.states()["04_step_dpo M2"] == "done"
    with holder(repo, "lock_stage", 30.0, "04_step_dpo M2") as kernel:
        states = repo.states()
        kernel.kill()
    assert states["04_step_dpo M2"] == (
        f"running  process {kernel.pid} (04_step_dpo M2) on {socket.gethostname()}"
    )
    assert states["03_search_judge M2"] == "done"


def test_other_commands_refuse_a_run_in_use(repo):
    with holder(repo, "lock", 30.0) as other:
        done = repo.call("clean-stage", "--stage", "03", "--n", "2")
        with pytest.raises(PSRError, match=f"is in use by process {other.pid} "):
            locks.lock(run_of("smoke", 0, repo.root / "runs", "0 1"), "several seeds")
        other.kill()
    assert done.returncode == 2 and f"is in use by process {other.pid} (a test)" in done.stderr


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_run_in_use(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(PSRError, match=r"\.lock: the file system gives no lock \(.*\); mount"):
        locks.lock(RunDir("smoke", 0, tmp_path), "a test")


def test_a_fork_does_not_keep_what_its_parent_gave_back(tmp_path):
    code = """
import os, time
from psr_lib import locks
from psr_lib.run_dirs import RunDir
run = RunDir("smoke", 0, {root!r})
locks.lock(run, "parent")
child = os.fork()
if not child:
    time.sleep(30)
    os._exit(0)
locks.unlock(run)
if not os.fork():  # another process, which holds nothing yet
    locks._held.clear()
    locks.lock(run, "other")
    os._exit(0)
code = os.wait()[1]
os.kill(child, 9)
raise SystemExit(code)
"""
    done = subprocess.run([sys.executable, "-c", code.format(root=str(tmp_path))], timeout=60)
    assert done.returncode == 0


def test_sweeping_an_empty_run_is_nothing(tmp_path):
    leftovers.sweep(RunDir("smoke", 0, tmp_path))
    assert list(tmp_path.iterdir()) == []
