"""The runner: what it refuses, what it runs, what it skips and why; through its command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
import yaml
from conftest import OPEN, PARAMETERS, ROOT, make_notebook
from processes import alive, below

from psr_lib import commands, manifest, notebook_runner, progress, prompts, runs, stages
from psr_lib.presets import load
from psr_lib.records import PSRError
from psr_lib.request import several
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import make_key

ROUND_2 = ["00_base_model", "01_data_prep", "02_init M1", "03_search_judge M2", "04_step_dpo M2"]
ROUND_2 += ["05_evaluate M2"]


def one_line(text: str) -> str:
    """The only line of an error output."""
    assert len(text.strip().splitlines()) == 1, text
    assert "Traceback" not in text
    return text.strip()


# --- what is planned


def test_a_round_needs_all_models_before_it():
    plan = stages.in_order(stages.round_keys("psrlm", 3))
    assert [str(key) for key in plan] == [
        "01_data_prep" if i == 1 else name
        for i, name in enumerate(
            [*ROUND_2[:5], "03_search_judge M3", "04_step_dpo M3", "05_evaluate M3"]
        )
    ]


def test_controls_share_m1_and_borrowers_take_psrlms_pairs():
    run = RunDir("tiny")
    assert run.model("random-judge", 1) == run.model("psrlm", 1)
    assert run.model("random-judge", 2) != run.model("psrlm", 2)
    assert run.ppd("sft-chosen", 3) == run.ppd("psrlm", 3)
    plan = stages.in_order(stages.round_keys("sft-chosen", 2))
    assert Key("03_search_judge", "psrlm", 2) in plan
    assert Key("03_search_judge", "sft-chosen", 2) not in plan
    assert make_key("05_evaluate", "random-judge", 1, 4) == Key("05_evaluate", "psrlm", 1)


def test_only_the_search_of_a_control_has_another_judge():
    tiny = load("tiny")
    search = stages.parameters(tiny, Key("03_search_judge", "random-judge", 2), 0)
    scored = stages.parameters(tiny, Key("05_evaluate", "random-judge", 2), 0)
    assert search["judge"]["kind"] == "random" and scored["judge"]["kind"] == "self"


def test_the_laboratory_stands_apart_from_the_way_to_the_last_model():
    for method in stages.METHODS:
        every = [key for n in range(1, 5) for key in stages.round_keys(method, n)]
        assert stages.LAB not in {key.stage for key in stages.in_order(every)}, method


def test_a_models_laboratory_needs_its_verdicts_and_the_one_before():
    names = lambda method, n: list(map(str, stages.needs(make_key(stages.LAB, method, n, 4))))  # noqa: E731
    assert names("psrlm", 0) == ["01_data_prep", "05_evaluate M0"]
    assert names("psrlm", 1) == ["01_data_prep", "05_evaluate M1", "07_judge_lab M0"]
    assert names("psrlm", 3)[1:] == ["05_evaluate M3", "07_judge_lab M2", "03_search_judge M3"]
    # A coin judged its search; sft-chosen took another's pairs.
    assert names("random-judge", 2)[1:] == ["05_evaluate random-judge M2", "07_judge_lab M1"]
    assert names("sft-chosen", 2)[1:] == ["05_evaluate sft-chosen M2", "07_judge_lab M1"]
    assert names("srlm", 2) == ["01_data_prep", "01_data_prep srlm", "05_evaluate srlm M2",
                                "07_judge_lab srlm M1"]  # fmt: skip
    assert names("srlm", 1)[-1] == "07_judge_lab M0"
    assert names("reference", 0) == ["01_data_prep", "05_evaluate reference"]


def test_an_api_model_is_measured_not_trained():
    run, key = RunDir("tiny"), make_key("05_evaluate", "reference", 0, 4)
    assert run.folder(key) == run.path / "reference" / "eval" and str(key).endswith(" reference")
    with pytest.raises(PSRError, match="make evaluate or make judge"):
        make_key("04_step_dpo", "reference", 2, 4)
    tiny = load("tiny", "reference.model=some-api")
    found = stages.parameters(tiny, key, 0)
    assert (found["engine"]["kind"], found["engine"]["model"]) == ("server", "some-api")
    assert found["prompts"] == "paper" and found["templates"] == prompts.load("paper").hashes


def test_own_prompts_are_part_of_an_evaluations_parameters():
    plain, own = load("tiny"), load("tiny", "eval.own_prompts=qwen")
    key = Key("05_evaluate")
    assert "own_templates" not in stages.parameters(plain, key, 0)
    assert stages.parameters(own, key, 0)["own_templates"] == prompts.load("qwen").hashes


@pytest.mark.parametrize("name, n", [("02_init", 2), ("03_search_judge", 1), ("05_evaluate", 5)])
def test_rounds_that_a_stage_does_not_have_are_refused(name, n):
    with pytest.raises(PSRError, match="take iteration"):
        make_key(name, "psrlm", n, 4)


# --- the baseline and the controls


def test_the_baseline_has_data_and_m1_of_its_own_and_waits_for_psrlms_tokens():
    run = RunDir("tiny")
    assert run.folder(Key("01_data_prep", "srlm")) == run.path / "srlm/data"
    assert run.folder(Key("01_data_prep")) == run.data == run.path / "data"
    assert run.notebook(Key("01_data_prep", "srlm")).parent == run.path / "srlm/data/notebooks"
    assert run.model("srlm", 1) == run.path / "srlm/M1/model"
    assert run.ppd("srlm", 2) == run.path / "srlm/M2/ppd"
    assert make_key("01_data_prep", "srlm", 1, 4) == Key("01_data_prep", "srlm")
    assert make_key("05_evaluate", "srlm", 1, 4) == Key("05_evaluate", "srlm", 1)
    plan = [str(key) for key in stages.in_order(stages.round_keys("srlm", 2))]
    assert plan == [
        "00_base_model", "01_data_prep", "01_data_prep srlm", "02_init srlm M1", "02_init M1",
        "03_search_judge M2", "03_search_judge srlm M2", "04_step_dpo srlm M2",
        "05_evaluate srlm M2",
    ]  # fmt: skip


SWITCHED = {
    "random-judge": {"03_search_judge": ["judge.kind self -> random"]},
    "random-judge-nll0": {
        "03_search_judge": ["judge.kind self -> random"],
        "04_step_dpo": ["dpo.nll_weight 10.0 -> 0.0"],
    },
    "gold-judge": {"03_search_judge": ["judge.kind self -> oracle"]},
    "ift-more": {},
    "sft-chosen": {},
}


@pytest.mark.parametrize("method", SWITCHED)
def test_a_control_is_its_switch_apart_from_psrlm_and_shares_its_m1(method):
    tiny, run = load("tiny"), RunDir("tiny")
    for stage in ("03_search_judge", "04_step_dpo", "05_evaluate"):
        ours, theirs = (stages.parameters(tiny, Key(stage, m, 3), 0) for m in ("psrlm", method))
        found = manifest.differences(ours, theirs)
        assert found == [f"method psrlm -> {method}", *SWITCHED[method].get(stage, [])]
    assert run.model(method, 1) == run.model("psrlm", 1)
    assert make_key("02_init", method, 1, 4) == Key("02_init", "psrlm", 1)
    assert set(SWITCHED) | {"psrlm", "srlm", "reference"} == set(stages.METHODS)


def test_the_baseline_reads_its_own_section_and_trains_as_psrlm_does():
    tiny = load("tiny")
    ours, theirs = (
        {stage: stages.parameters(tiny, Key(stage, m, 2), 0) for stage in stages.STAGES}
        for m in ("psrlm", "srlm")
    )
    for stage in ("02_init", "04_step_dpo"):
        assert manifest.differences(ours[stage], theirs[stage]) == ["method psrlm -> srlm"]
    assert all("srlm" not in parameters for parameters in ours.values())
    search = theirs["03_search_judge"]
    assert "judge" not in search and search["search"] == ours["03_search_judge"]["search"]


@pytest.mark.slow
def test_the_baselines_stages_leave_psrlms_alone(repo):
    before = {p: t for p, t in repo.files().items() if "/srlm/" not in p and ".lock" not in p}
    done = repo.call("iteration", "--n", "2", "--method", "srlm")
    assert done.returncode == 0, done.stderr
    for name in ("02_init M1", "03_search_judge M2"):
        assert f"{name}: up to date" in done.stdout
    for name in ("01_data_prep srlm", "02_init srlm M1", "03_search_judge srlm M2"):
        assert f"{name}: running (no complete result yet)" in done.stdout
    after = {p: t for p, t in repo.files().items() if "/srlm/" not in p and ".lock" not in p}
    assert after == before
    made = json.loads((repo.run / "srlm/M2/ppd/manifest.json").read_text())
    assert {"run:srlm/M1/model", "run:psrlm/M2/ppd/ppd.jsonl"} <= set(made["inputs"])
    states = repo.states("--method", "srlm", "--set", "srlm.scores=2")
    assert states["03_search_judge srlm M2"] == "stale    srlm.scores 3 -> 2"
    assert states["03_search_judge M2"] == states["02_init srlm M1"] == "done"
    assert repo.states("--set", "srlm.scores=2")["03_search_judge M2"] == "done"
    assert "nothing to do" in repo.call("data", "--method", "srlm").stdout
    repo.write("runs/smoke/seed0/psrlm/M2/ppd/ppd.jsonl", "other pairs\n")
    changed = repo.states("--method", "srlm")["03_search_judge srlm M2"]
    assert changed == "stale    run:psrlm/M2/ppd/ppd.jsonl changed"


def test_methods_and_seeds_are_gone_through_seed_by_seed():
    words = ["reproduce", "--preset", "smoke", "--seeds", "0 1"]
    words += ["--methods", "psrlm srlm random-judge gold-judge ift-more"]
    read = commands.make_parser().parse_args
    found = [(request.run.seed, request.method) for request in several(read(words))]
    methods = ("psrlm", "srlm", "random-judge", "gold-judge", "ift-more")
    assert found == [(seed, method) for seed in (0, 1) for method in methods]
    one = several(read(["judge", "--method", "srlm"]))
    assert [(r.run.seed, r.method) for r in one] == [(0, "srlm")]


def test_a_dry_run_refuses_a_method_that_the_real_run_would():
    from psr_lib.dry_run import rehearse

    words = ["iteration", "--n", "2", "--preset", "paper-7b", "--method", "gold-judge", "--dry"]
    with pytest.raises(PSRError, match=r"METHOD=gold-judge: its oracle knows .* alone"):
        rehearse(commands.make_parser().parse_args(words), lambda *_: pytest.fail("built"))


# --- the strict front


def test_unknown_and_wrong_typed_parameters_write_nothing(tmp_path):
    notebook = make_notebook(tmp_path / "nb.ipynb", "1", parameters=PARAMETERS.format(n=2))
    output = tmp_path / "out" / "nb.ipynb"
    for values, words in (
        ({"iteratoin": 2}, "did you mean 'iteration'"),
        ({"iteration": "2"}, "iteration should be int"),
        ({"iteration": True}, "iteration should be int"),
        ({"preset": 3}, "preset should be str"),
    ):
        with pytest.raises(PSRError, match=words):
            notebook_runner.execute(notebook, output, values)
    assert not output.parent.exists()


def test_parameters_are_read_with_types_and_comments(tmp_path):
    cell = "a: int = 1  # with a = in it\nb = 0.5\nc: list = [1]\nimport os\nd: bool = True"
    notebook = make_notebook(tmp_path / "nb.ipynb", parameters=cell)
    found = notebook_runner.parameters(notebook)
    assert {name: p.type for name, p in found.items()} == dict(
        a="int", b="float", c="list", d="bool"
    )
    assert found["a"].help == "with a = in it"
    assert "a: int = 1" in notebook_runner.help_text(notebook)
    with pytest.raises(PSRError, match="no cell tagged"):
        notebook_runner.check(make_notebook(tmp_path / "no.ipynb", "x = 1"), {"x": 2})


def test_a_failing_cell_is_one_line_and_its_notebook_is_kept(empty_repo):
    name = "00_base_model"
    cells = ("print('before')", "raise ValueError('bad\\nluck')", "print('after')")
    parameters = PARAMETERS.format(n=0)
    make_notebook(empty_repo.root / f"notebooks/{name}.ipynb", *cells, parameters=parameters)
    done = empty_repo.call("reproduce")
    line = one_line(done.stderr)
    assert done.returncode == 1 and "ValueError: luck" in line
    kept = empty_repo.run / "base/notebooks/00_base_model.ipynb"
    assert str(kept.relative_to(empty_repo.root)) in line
    text = kept.read_text()
    assert "before" in text and not (empty_repo.run / "base/manifest.json").exists()


def test_a_notebook_that_never_finishes_its_stage_fails(empty_repo):
    cells = (OPEN.format(name="00_base_model"), "1 + 1")
    path = empty_repo.root / "notebooks/00_base_model.ipynb"
    make_notebook(path, *cells, parameters=PARAMETERS.format(n=0))
    done = empty_repo.call("reproduce")
    assert done.returncode == 1 and "stage.finish()" in one_line(done.stderr)


# --- running and skipping


def test_round_2_builds_what_is_missing_before_it(finished):
    repo, printed = finished
    for name in ROUND_2:
        assert f"{name}: running (no complete result yet)" in printed
    assert "  .. toy search 2/2" in printed and "pairs 7" in printed
    assert "a table that stays in the notebook" not in printed
    kept = repo.run / "psrlm/M2/notebooks/03_search_judge.ipynb"
    assert "a table that stays in the notebook" in kept.read_text()
    assert not (repo.run / "psrlm/M3").exists() and not (repo.run / "base/eval").exists()


def test_executed_notebooks_name_no_path_of_the_machine(finished):
    repo, _ = finished
    for path in repo.run.rglob("*.ipynb"):
        recorded = nbformat.read(path, as_version=4).metadata.papermill
        assert str(repo.root) not in json.dumps(recorded), path
        assert recorded["parameters"]["runs_dir"] == "runs"


def test_a_manifest_tells_what_was_read_used_and_written(finished):
    repo, _ = finished
    found = json.loads((repo.run / "psrlm/M2/ppd/manifest.json").read_text())
    assert found["stage"] == "03_search_judge" and found["status"] == "complete"
    assert set(found["inputs"]) == {"run:data/questions_2.jsonl", "run:psrlm/M1/model"}
    assert found["outputs"]["ppd.jsonl"]["rows"] == 1
    assert found["params"]["search"]["width"] == 4 and "sft" not in found["params"]
    assert found["tokens"] == {"generated": 3, "judged": 7} and found["counts"] == {"pairs": 1}
    assert {"git", "versions", "device", "wall_seconds", "seed", "params_hash"} <= set(found)
    assert "psr_lib/toy_deep.py" in found["code"]
    assert not {"psr_lib/unused.py", "psr_lib/runs.py", "psr_lib/evaluation.py"} & set(
        found["code"]
    )


def test_the_runner_leaves_cards_beside_every_model(finished):
    repo, _ = finished
    for n in (1, 2):
        card = (repo.run / f"psrlm/M{n}/MODEL_CARD.md").read_text()
        assert f"# psr-smoke-psrlm-M{n}-seed0\n" in card
        assert (repo.run / f"psrlm/M{n}/DATA_CARD.md").is_file()


def test_a_second_call_does_nothing_and_says_so(repo):
    before = repo.files()
    done = repo.call("iteration", "--n", "2")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        *(f"{name}: up to date" for name in ROUND_2),
        "nothing to do: everything is up to date",
    ]
    changed = {path for path, when in repo.files().items() if before.get(path) != when}
    assert {path.rsplit("/", 1)[1] for path in changed} <= {".lock"}


def test_an_override_reruns_what_reads_it_and_says_why(repo):
    done = repo.call("iteration", "--n", "2", "--set", "search.width=5")
    assert done.returncode == 0, done.stderr
    assert "02_init M1: up to date" in done.stdout
    assert "03_search_judge M2: running (search.width 4 -> 5)" in done.stdout
    assert "04_step_dpo M2: running (run:psrlm/M2/ppd/ppd.jsonl changed)" in done.stdout
    assert "05_evaluate M2: running (search.width 4 -> 5)" in done.stdout
    assert "5" in (repo.run / "psrlm/M2/ppd/ppd.jsonl").read_text()
    assert "stale" in repo.states()["03_search_judge M2"]


def test_code_that_a_stage_imports_makes_it_stale_and_other_code_does_not(repo):
    repo.write("psr_lib/unused.py", "changed = True\n")
    repo.write("psr_lib/evaluation.py", "changed = True\n")
    assert set(repo.states()[name] for name in ROUND_2) == {"done"}
    repo.write("psr_lib/toy_deep.py", "SALT = 2\n")
    states = repo.states()
    assert states["02_init M1"] == "stale    psr_lib/toy_deep.py changed"
    assert states["03_search_judge M2"].startswith("stale")


def test_the_notebooks_code_makes_it_stale_but_its_text_and_defaults_do_not(repo):
    path = repo.root / "notebooks/03_search_judge.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = notebook.cells[0].source.replace(
        "iteration: int = 2", "iteration: int = 4"
    )
    notebook.cells.append(nbformat.v4.new_markdown_cell("a remark"))
    path.write_text(nbformat.writes(notebook))
    assert repo.states()["03_search_judge M2"] == "done"
    notebook.cells[2].source += "\nprint(1)"
    path.write_text(nbformat.writes(notebook))
    assert repo.states()["03_search_judge M2"] == "stale    03_search_judge.ipynb changed"
    assert repo.states()["04_step_dpo M2"] == "done"


def test_a_changed_base_model_makes_m1_stale(repo):
    repo.write("data/tiny/base/model.safetensors", "other weights")
    assert repo.states()["02_init M1"] == "stale    repository:data/tiny/base changed"


def test_an_edited_output_is_named_and_never_overwritten_unasked(repo):
    edited = repo.write("runs/smoke/seed0/psrlm/M2/ppd/ppd.jsonl", "edited\n")
    done = repo.call("iteration", "--n", "2")
    line = one_line(done.stderr)
    assert done.returncode == 2 and edited.read_text() == "edited\n"
    assert "03_search_judge M2: runs/smoke/seed0/psrlm/M2/ppd/ppd.jsonl changed" in line
    assert "make clean-stage STAGE=03 N=2 PRESET=smoke, or with FORCE=1" in line
    assert repo.states()["03_search_judge M2"].startswith("damaged")
    done = repo.call("iteration", "--n", "2", "--force")
    assert done.returncode == 0, done.stderr
    assert edited.read_text() != "edited\n" and "02_init M1: up to date" in done.stdout


@pytest.mark.parametrize("text", ["", '{"format": 1', '{"format": 0, "status": "complete"}'])
def test_a_half_written_manifest_is_damage(repo, text):
    repo.write("runs/smoke/seed0/data/manifest.json", text)
    assert repo.states()["01_data_prep"].startswith("damaged")


def test_a_missing_output_is_named(repo):
    (repo.run / "data/questions_3.jsonl").unlink()
    done = repo.call("iteration", "--n", "2")
    assert done.returncode == 2 and "questions_3.jsonl is missing" in one_line(done.stderr)


def test_a_model_without_tokenizer_is_one_line(empty_repo):
    (empty_repo.root / "data/tiny/base/tokenizer.json").unlink()
    done = empty_repo.call("iteration", "--n", "1")
    line = one_line(done.stderr)
    assert done.returncode == 1 and "data/tiny/base: no tokenizer in it" in line


@pytest.mark.slow
def test_force_runs_the_named_round_again_and_leaves_nothing_old(repo):
    repo.write("runs/smoke/seed0/psrlm/M2/ppd/old.jsonl", "old\n")
    done = repo.call("iteration", "--n", "2", "--force")
    assert "03_search_judge M2: running (forced)" in done.stdout
    assert "02_init M1: up to date" in done.stdout
    assert not (repo.run / "psrlm/M2/ppd/old.jsonl").exists()


def test_a_control_starts_from_psrlms_m1(repo):
    done = repo.call("iteration", "--n", "2", "--method", "random-judge")
    assert done.returncode == 0, done.stderr
    assert "02_init M1: up to date" in done.stdout
    assert not (repo.run / "random-judge/M1").exists()
    found = json.loads((repo.run / "random-judge/M2/ppd/manifest.json").read_text())
    assert "run:psrlm/M1/model" in found["inputs"]
    assert "random" in (repo.run / "random-judge/M2/ppd/ppd.jsonl").read_text()


def test_reproduce_runs_every_round_and_ends_with_the_table(repo):
    done = repo.call("reproduce", "--set", "rounds=2")
    assert done.returncode == 0, done.stderr
    assert "05_evaluate M0: done" in done.stdout and "05_evaluate M2" in done.stdout
    assert "runs/smoke/seed0 psrlm\ntoy psrlm\nexecuted notebooks: runs/smoke" in done.stdout


def test_base_passes_retrain_to_its_notebook(repo):
    done = repo.call("base")
    assert done.returncode == 0 and "00_base_model: running (forced)" in done.stdout
    text = (repo.run / "base/notebooks/00_base_model.ipynb").read_text()
    assert "retrain = True" in text


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n", "0"], "N=0: preset smoke has rounds 1 to 4"),
        (["--n", "9"], "N=9: preset smoke has rounds 1 to 4"),
        (["--n", "two"], "N=two"),
        ([], "N is missing"),
        (["--n", "2", "--preset", "nope"], "preset 'nope' is unknown"),
        (["--n", "2", "--set", "search.wdth=3"], "did you mean 'search.width'"),
        (["--n", "2", "--set", "search.width=1"], "search.width: 1 is too small"),
        (["--n", "2", "--method", "psrml"], "did you mean 'psrlm'"),
        (["--n", "2", "--seed", "-1"], "SEED=-1"),
        (
            ["--n", "2", "--preset", "paper-7b", "--method", "gold-judge"],
            "METHOD=gold-judge: its oracle knows the steps of laboratory problems alone",
        ),
        (["--n", "2", "--preset", "paper-7b", "--method", "ift-more"], "SET=data.ift_more=28889"),
        (["--n", "2", "--preset", "paper-7b", "--set", "judge.kind=oracle"], "judge.kind=oracle"),
        (["--n", "2", "--iteration", "3"], "unrecognized arguments"),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(empty_repo, arguments, words):
    done = empty_repo.call("iteration", *arguments)
    assert done.returncode == 2 and words in one_line(done.stderr)
    assert done.stdout == "" and not (empty_repo.root / "runs").exists()


def test_help_notebook_shows_parameters_with_comments(empty_repo):
    done = empty_repo.call("help-notebook", "03")
    assert done.returncode == 0 and "which round" in done.stdout
    assert "unknown" in one_line(empty_repo.call("help-notebook", "77").stderr)


# --- two at once, and stopping


TEXT = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}


def make_environment(repo):
    """As a user's shell has it, whatever started these tests."""
    return {name: value for name, value in repo.environment().items() if name[:4] != "MAKE"}


def slow_search(repo, command=()):
    """Make the search sleep, and start round 2 without waiting for it."""
    cells = (OPEN.format(name="03_search_judge"), "import time; print(stage); time.sleep(60)")
    path = repo.root / "notebooks/03_search_judge.ipynb"
    make_notebook(path, *cells, parameters=PARAMETERS.format(n=2))
    process = subprocess.Popen(
        command or repo.command("iteration", "--n", "2"),
        cwd=repo.root,
        env=make_environment(repo),
        start_new_session=True,
        **TEXT,
    )
    deadline = time.monotonic() + 60
    kept = repo.run / "psrlm/M2/ppd/manifest.before.json"
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kept.exists(), "the search never started"
    return process


def test_a_second_make_is_refused_and_a_stopped_one_goes_on_cleanly(repo):
    process = slow_search(repo)
    try:
        second = repo.call("iteration", "--n", "2")
        assert second.returncode == 2
        assert f"runs/smoke/seed0 is in use by process {process.pid}" in one_line(second.stderr)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert one_line(errors).startswith("interrupted:")
    # Nothing had been written yet, so the result from before still stands under its old code.
    assert repo.states()["03_search_judge M2"] == "stale    03_search_judge.ipynb changed"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_make_that_is_stopped_says_how_to_go_on_and_leaves_no_process(repo, how):
    """Ctrl-C reaches all that the terminal runs; SIGTERM, as of a scheduler, make alone."""
    shutil.copy(ROOT / "Makefile", repo.root)
    make = ["make", "--no-print-directory", "iteration", "N=2", "PRESET=smoke"]
    make.append(f"CONDA={sys.executable}")
    process = slow_search(repo, make)
    family = alive([process.pid, *below(process.pid)])
    try:
        second = subprocess.run(make, cwd=repo.root, env=make_environment(repo), **TEXT)
        assert second.returncode == 2 and "runs/smoke/seed0 is in use by process" in second.stderr
    finally:
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert "interrupted: complete stages are kept; the same command goes on there" in errors
    assert "Traceback" not in errors and process.returncode != 0
    deadline = time.monotonic() + 30
    while (left := left_of(family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert repo.states()["03_search_judge M2"] == "stale    03_search_judge.ipynb changed"


def left_of(family):
    """Processes of a family that still run."""
    return [pid for pid, start in alive(family).items() if start == family[pid]]


def test_a_stage_stopped_half_way_counts_as_missing(repo):
    folder = repo.run / "psrlm/M2/ppd"
    manifest.set_aside(folder)
    assert repo.states()["03_search_judge M2"] == "done"
    (folder / "ppd.jsonl").write_text("half")
    assert repo.states()["03_search_judge M2"].startswith("partial")


# --- by hand


def test_a_notebook_run_by_hand_builds_what_it_needs(empty_repo):
    script = (
        "from psr_lib import runs, toy\n"
        "stage = runs.open_stage('02_init', preset='smoke', iteration=1)\n"
        "toy.model(stage.folder, 1)\n"
        "assert stage.finish()['by_hand']"
    )
    done = subprocess.run(
        [os.sys.executable, "-c", script],
        cwd=empty_repo.root / "notebooks",
        env=empty_repo.environment(PYTHONPATH=str(empty_repo.root)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "building what 02_init M1 needs" in done.stdout
    assert "01_data_prep: done" in done.stdout
    assert empty_repo.states()["02_init M1"] == "done"


def test_a_stage_reads_only_what_it_declares_and_what_is_verified(repo):
    script = (
        "from psr_lib import runs\n"
        "import pathlib\n"
        "def refused(call, word):\n"
        "    try:\n"
        "        call()\n"
        "    except runs.PSRError as error:\n"
        "        assert word in str(error), error\n"
        "    else:\n"
        "        raise SystemExit(word)\n"
        "stage = runs.open_stage('04_step_dpo', preset='smoke', iteration=2)\n"
        "refused(lambda: stage.preset.eval, \"does not declare preset section 'eval'\")\n"
        "refused(lambda: stage.input('data/nope.jsonl'), 'did not make it')\n"
        "refused(lambda: stage.input('random-judge/M2/ppd/ppd.jsonl'), 'no complete stage')\n"
        "refused(lambda: stage.source('data/none'), 'no such file')\n"
        "refused(stage.finish, 'nothing was written')\n"
        "stage.pairs().write_text('edited')\n"
        "refused(stage.pairs, 'ppd.jsonl changed after it was written')\n"
        "stage.output('model.safetensors')\n"
        "stage.output('extra.json')\n"
        "refused(stage.finish, 'extra.json: was announced but never written')\n"
    )
    done = subprocess.run(
        [os.sys.executable, "-c", script],
        cwd=repo.root / "notebooks",
        env=repo.environment(PYTHONPATH=str(repo.root)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout


# --- hashes


def test_a_manifest_names_the_commit_that_its_stage_began_with(tmp_path, monkeypatch):
    state = {"commit": "a" * 40, "dirty": False}
    monkeypatch.setattr(manifest, "git_state", lambda: dict(state))
    run, key = RunDir("smoke", 0, tmp_path), Key("03_search_judge", "psrlm", 2)
    stage = runs.Stage(run, key, "psrlm", load("smoke"))
    stage.output("ppd.jsonl").write_text("{}\n")
    state["commit"] = "b" * 40  # while the stage runs
    assert stage.finish()["git"]["commit"] == "a" * 40


def test_large_files_are_sampled_over_their_whole_length(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 100)
    monkeypatch.setattr(manifest, "SAMPLE", 4)
    path = tmp_path / "weights"
    path.write_bytes(bytes(200))
    before = manifest.fingerprint(path)
    for place in (0, 199):
        changed = bytearray(200)
        changed[place] = 1
        path.write_bytes(changed)
        assert manifest.fingerprint(path) != before
    path.write_bytes(bytes(201))
    assert manifest.fingerprint(path) != before


def test_imports_are_followed_through_packages_lazy_and_relative_imports(tmp_path):
    library = tmp_path / "psr_lib"
    (library / "engines").mkdir(parents=True)
    files = {
        "a.py": "def f():\n    import psr_lib.b\n",
        "b.py": "from psr_lib.engines import hf\n",
        "c.py": "",
        "engines/__init__.py": "from . import base\n",
        "engines/base.py": "from ..c import x\n",
        "engines/hf.py": "from psr_lib import runs\n",
        "runs.py": "from psr_lib import d\n",
        "d.py": "",
    }
    for name, text in files.items():
        (library / name).write_text(text)
    found = manifest.imported_files("%matplotlib inline\nfrom psr_lib import a, runs", library)
    names = {path.relative_to(library).as_posix() for path in found}
    assert names == {"a.py", "b.py", "c.py"} | {
        f"engines/{n}.py" for n in ("__init__", "base", "hf")
    }
    (library / "c.py").write_text("def broken(")
    with pytest.raises(PSRError, match=r"psr_lib.c: not valid Python"):
        manifest.imported_files("import psr_lib.c", library)


def test_differences_name_the_value():
    old, new = {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}
    assert manifest.differences(old, new) == ["a.c 2 -> 3", "a.d None -> 4"]


def test_a_preset_shown_in_a_notebook_keeps_a_text_with_line_breaks_on_its_line():
    key = Key("01_data_prep", "psrlm", 0)
    shown = repr(runs.SectionView(load("tiny"), key))
    assert yaml.safe_load(shown)["prm"]["tag"] == "\n" and 'tag: "\\n"' in shown


# --- progress


def test_progress_prints_at_most_one_line_every_few_seconds(capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PSR_QUIET", raising=False)
    now = [0.0]
    with progress.Progress(10, "search", every=5, clock=lambda: now[0]) as count:
        for done in range(1, 11):
            now[0] += 2
            count.update(done, pairs=done * 3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == "  .. search 3/10, 0.5/s, 0:14 left, pairs 9"
    assert lines[-1].startswith("  .. search 10/10")


def test_progress_tells_no_time_left_from_the_first_few_of_many():
    now = [0.0]
    count = progress.Progress(3200, "solutions", every=1e9, clock=lambda: now[0])
    now[0] = 11
    count.update(1)
    assert "left" not in count.line() and "solutions 1/3200" in count.line()
    count.update(32)
    assert "18:09 left" in count.line()
    count.update(31)
    now[0] = 61  # long enough: slow work is told how long it takes though little is done
    assert "left" in count.line()


def test_progress_is_quiet_on_request_and_for_short_work(capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    assert list(progress.track([1, 2, 3], "short")) == [1, 2, 3]
    monkeypatch.setenv("PSR_QUIET", "1")
    list(progress.Progress(range(3), "quiet", every=0))
    assert capsys.readouterr().out == ""


def test_the_repository_is_found_from_the_library():
    assert manifest.root() == ROOT


def test_a_stored_notebook_keeps_the_last_progress_line_of_a_cell():
    from psr_lib.notebook_runner import _without_progress
    from psr_lib.progress import MARK

    texts = [f"{MARK}1/3\n", f"{MARK}2/3\nresult\n", "other\n", f"{MARK}3/3\n"]
    made = [nbformat.v4.new_output("stream", text=text) for text in texts]
    made.insert(2, nbformat.v4.new_output("display_data", data={"text/plain": "x"}))
    kept = _without_progress(made)
    shown = "".join(o.text for o in kept if o.output_type == "stream")
    assert shown == f"result\nother\n{MARK}3/3\n"
    assert [o.output_type for o in kept].count("display_data") == 1


def test_force_makes_the_chain_again_but_keeps_the_teachers_answers(repo):
    kept, gone = repo.root / "runs/paid/o1.jsonl", repo.run / "making/prm/model.safetensors"
    for path in (kept, gone):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    assert "up to date" in repo.call("data").stdout and gone.exists()
    assert repo.call("data", "--force").returncode == 0
    assert kept.read_text() == "x" and not gone.parent.exists()
    assert [path.name for path in (repo.run / "making").iterdir()] == ["forced"]
