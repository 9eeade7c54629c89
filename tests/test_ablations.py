"""Runs that differ in one setting: what is asked for, what is shared, what is shown and kept."""

import fcntl
import os
import shutil
import subprocess
import sys

import pytest
from card_runs import make_run
from conftest import ROOT

from psr_lib import ablation_tables, ablations, commands, locks, manifest, readme, variants
from psr_lib.ablations import Grid
from psr_lib.evaluation import read_csv
from psr_lib.records import PSRError, write_text
from psr_lib.run_dirs import Key, RunDir


def asked(*more, knob="search.width", values="2 4 6"):
    """The arguments of `make ablate`."""
    line = ["ablate", "--preset", "smoke", "--knob", knob, "--values", values, *more]
    return commands.make_parser().parse_args(line)


# --- what is asked for


def test_every_value_and_seed_has_a_run_of_its_own_on_dev_problems():
    grid, requests = ablations.plan(asked("--seeds", "0 1", "--set", "dpo.beta=0.2"))
    assert (grid.values, grid.own, grid.base, grid.n) == (("2", "4", "6"), "4", "4", 4)
    assert grid.split == "dev" and grid.seeds == (0, 1) and len(requests) == 6
    one = requests["2", 1]
    assert one.run.path == ROOT / "runs/ablations/search.width/2/smoke/seed1"
    assert (one.preset.search.width, one.preset.dpo.beta, one.preset.data.split) == (2, 0.2, "dev")


def test_set_may_name_another_split_and_values_may_be_lists_or_words():
    assert ablations.plan(asked("--set", "data.split=test"))[0].split == "test"
    grid, requests = ablations.plan(asked(knob="dpo.filters", values="[margin] [margin,length]"))
    assert grid.own == "[margin,length]"
    assert requests["[margin]", 0].preset.dpo.filters == ("margin",)
    assert requests["[margin]", 0].run.path.parts[-3] == "margin"
    grid, _ = ablations.plan(asked("--n", "2", values="2 3"))
    assert (grid.own, grid.base, grid.n) == ("", "2", 2)


@pytest.mark.parametrize(
    ("knob", "values", "words"),
    [
        ("", "1 2", "KNOB and two or more VALUES are needed"),
        ("search.width", "4", "KNOB and two or more VALUES are needed"),
        ("search.widht", "2 4", "did you mean 'search.width'"),
        ("search.width", "4 1", "1 is too small"),
        ("search.width", "4 4", "two of them have one name"),
    ],
)
def test_a_wrong_grid_is_one_line_before_anything_runs(knob, values, words):
    with pytest.raises(PSRError, match=words):
        ablations.plan(asked(knob=knob, values=values))


def test_a_value_borrows_from_the_presets_run_from_other_ablations_and_from_values_before_it(
    tmp_path, monkeypatch
):
    lent, built = [], []
    monkeypatch.setattr(variants, "share", lambda runs, run, keys, preset: lent.append(list(runs)))
    monkeypatch.setattr(ablations, "summary", lambda grid, value, run: {"value": value})
    (tmp_path / "ablations/dpo.beta/0.3/smoke/seed0").mkdir(parents=True)
    args = asked("--n", "2", "--seeds", "0 1", "--runs-dir", str(tmp_path), values="2 4")
    _, found = ablations.run(args, lambda request, keys: built.append((request.run, *keys)))
    assert [one["value"] for one in found] == ["2", "4", "2", "4"]
    first, beta = tmp_path / "smoke/seed{}", tmp_path / "ablations/dpo.beta/0.3/smoke/seed0"
    two = tmp_path / "ablations/search.width/2/smoke/seed{}"
    assert [[str(run.path) for run in runs] for runs in lent] == [
        [str(path).format(0) for path in (first, beta)],
        [str(path).format(0) for path in (first, beta, two)],
        [str(first).format(1)], [str(path).format(1) for path in (first, two)],
    ]  # fmt: skip
    assert [(run.seed, str(key)) for run, key in built] == [
        (0, "05_evaluate M2"), (0, "05_evaluate M2"), (1, "05_evaluate M2"), (1, "05_evaluate M2")
    ]  # fmt: skip


# --- what is shared

SHARE = """
from psr_lib import presets, stages, variants
from psr_lib.run_dirs import Key, RunDir
one, other = RunDir("smoke", 0, "runs"), RunDir("smoke", 0, "runs/other")
keys = stages.in_order([Key("05_evaluate", "psrlm", 2)])
preset = presets.load("smoke", "dpo.beta=0.3")
print(*variants.share([one], other, keys, preset), sep="; ")
print(*variants.share([one], other, keys, preset), sep="; ")
"""


def test_stages_that_a_setting_does_not_touch_are_copied_and_not_made_again(repo):
    shutil.copy(ROOT / "psr_lib/variants.py", repo.root / "psr_lib")
    repo.write("runs/smoke/seed0/making/prm/model.bin", "long")
    repo.write("runs/paid/answers.jsonl", "{}\n")
    before = {name: state for name, state in repo.files().items() if not name.endswith(".lock")}
    done = subprocess.run([sys.executable, "-c", SHARE], cwd=repo.root, text=True,
                          capture_output=True, env=repo.environment())  # fmt: skip
    shared, again = done.stdout.splitlines()
    assert shared.split("; ") == ["00_base_model", "01_data_prep", "02_init M1",
                                  "03_search_judge M2", "05_evaluate M2"]  # fmt: skip
    assert again == "", "what is there already is left alone"
    assert (repo.root / "runs/other/smoke/seed0/making/prm/model.bin").read_text() == "long"
    assert (repo.root / "runs/other/paid/answers.jsonl").is_file()
    changed = ("--runs-dir", "runs/other", "--set", "dpo.beta=0.3")
    done = repo.call("iteration", "--n", "2", *changed)
    states = [line.partition(": ")[2].split()[0] for line in done.stdout.splitlines()
              if not line.endswith(" s")]  # fmt: skip
    assert states[:4] == ["up"] * 4 and states[4:6] == ["running", "running"], done.stdout
    after = repo.files()
    assert {name: after[name] for name in before} == before, "the run that lent is as it was"


DONE = Key("02_init", "psrlm", 1)


@pytest.fixture
def lender(tmp_path, monkeypatch):
    """A run that has all that a variant may borrow, and the variant."""
    monkeypatch.setattr(variants, "_current", lambda run, key, preset: True)
    run, other = make_run(tmp_path / "runs"), RunDir("smoke", 0, tmp_path / "other")
    write_text(run.making / "prm/model.bin", "long")
    write_text(run.making / "trees.jsonl", "{}\n")
    write_text(run.paid / "teacher.jsonl", "{}\n")
    return run, other


def held(run):
    """The run's lock as another process has it, until the handle is closed."""
    run.path.mkdir(parents=True, exist_ok=True)
    handle = os.open(run.path / locks.RUN, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, b"process 7 (tiny)")
    return handle


def test_a_run_that_another_process_holds_is_not_copied_into(lender):
    run, other = lender
    handle = held(other)
    with pytest.raises(PSRError, match=r"in use by process 7 \(tiny\); wait until it ends"):
        variants.share([run], other, [DONE], None)
    assert [path.name for path in other.path.rglob("*")] == [locks.RUN]
    assert not other.paid.exists()
    os.close(handle)
    assert variants.share([run], other, [DONE], None) == [DONE]
    os.close(held(other))  # which was given back


def test_a_run_at_work_lends_what_is_complete_but_not_what_eft_is_made_with(lender, capsys):
    run, other = lender
    handle = held(run)
    assert variants.share([run], other, [DONE], None) == [DONE]
    assert not other.making.exists() and (other.paid / "teacher.jsonl").is_file()
    assert "not borrowed: " in capsys.readouterr().out
    os.close(handle)
    variants.share([run], other, [DONE], None)
    assert (other.making / "trees.jsonl").is_file()


def test_a_copy_that_is_killed_leaves_nothing_that_counts(lender, monkeypatch):
    run, other = lender
    whole = shutil.copyfile

    def killed(name):
        def copy(old, new, **more):
            if old.name != name:
                return whole(old, new, **more)
            new.write_text("ha")
            raise KeyboardInterrupt

        return copy  # fmt: skip

    for name in ("model.safetensors", "teacher.jsonl"):
        monkeypatch.setattr(shutil, "copyfile", killed(name))
        with pytest.raises(KeyboardInterrupt):
            variants.share([run], other, [DONE], None)
        assert not list(other.path.parents[1].rglob(f"{name}*")), "no half of it"
    monkeypatch.setattr(shutil, "copyfile", whole)
    monkeypatch.setattr(
        shutil, "copytree", lambda old, new: (new / "prm").mkdir(parents=True) or 0 / 0
    )
    with pytest.raises(ZeroDivisionError):
        variants.share([run], other, [DONE], None)
    assert not list(other.path.glob("making*"))
    monkeypatch.undo()
    assert (other.paid / "teacher.jsonl").is_file() and manifest.read(other.folder(DONE))


def test_a_stage_that_is_made_anew_while_it_is_copied_is_not_taken(lender, monkeypatch):
    run, other = lender
    whole = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda old, new, **_: new.write_text("another")
                        if old.name == "model.safetensors" else whole(old, new))  # fmt: skip
    assert variants.share([run], other, [DONE], None) == []
    assert manifest.read(other.folder(DONE)) is None
    (run.folder(DONE) / "model.safetensors").unlink()
    monkeypatch.undo()
    monkeypatch.setattr(variants, "_current", lambda run, key, preset: True)
    assert variants.share([run], other, [DONE], None) == []


# --- what is shown and kept

GRID = Grid("smoke", "psrlm", 2, "search.width", ("2", "4"), "4", "dev", (0, 1))


def run_of(value, seed, outcomes, judged, pairs):
    """A summary as `ablations.summary` has it."""
    model = {"model": "M2", "accuracy": {}, "outcomes": {"easy": outcomes},
             "judge_outcomes": judged,
             "judge_problems": " ".join(map(str, range(len(judged))))}  # fmt: skip
    search = {"stage": "03_search_judge", "iteration": 2, "method": "psrlm",
              "tokens": {"generated": 10, "judged": 20},
              "counts": {"pairs": pairs, "tie_rate": 0.25}}  # fmt: skip
    return {"value": value, "run": f"runs/ablations/search.width/{value}/smoke/seed{seed}",
            "preset": "smoke", "seed": seed, "split": "dev", "git": {"commit": "c" * 40},
            "params_hash": "p", "models": [model], "stages": [search]}  # fmt: skip


FOUND = [
    run_of("2", 0, "0000000000", "1100", 3), run_of("4", 0, "1111100000", "1110", 5),
    run_of("2", 1, "0000000000", "1100", 4), run_of("4", 1, "1111100000", "1110", 7),
]  # fmt: skip


def test_rows_hold_levels_paired_changes_and_counts():
    two, four = ablation_tables.rows_of(GRID, FOUND)
    assert (two["setting"], two["accuracy"], four["accuracy"]) == ("2", 0.0, 50.0)
    assert four["low"] < 50 < four["high"] and "change" not in four
    assert two["change"] == -50.0 and two["change_low"] < -50 < two["change_high"] < 0
    assert (two["judge"], four["judge"]) == (50.0, 75.0)
    assert (two["pairs"], four["pairs"], four["tokens"], four["tie_rate"]) == (3.5, 6.0, 30, 0.25)


def test_the_finding_and_the_table_say_what_differs_from_the_presets_own_value():
    rows = ablation_tables.rows_of(GRID, FOUND)
    assert ablation_tables.finding(GRID, rows) == "search.width against 4: 2 worse"
    level = [rows[0] | {"change_low": -1.0, "change_high": 1.0}, rows[1]]
    assert ablation_tables.finding(GRID, level).endswith(": 2 not clearly different")
    printed = ablation_tables.printed(GRID, rows).splitlines()
    assert "4 (preset)" in printed[3] and printed[2].split()[:3] == ["search.width", "2", "0.0"]


def test_what_is_kept_gives_the_same_figure_which_names_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_tables.results, "folder", lambda: tmp_path / "results")
    monkeypatch.setattr(ablation_tables, "FIGURES", str(tmp_path / "figures"))
    path, figure = ablation_tables.keep(GRID, FOUND)
    assert path == tmp_path / "results/ablations/smoke/search.width.json"
    assert ablation_tables.load(path) == (GRID, FOUND) and ablation_tables.kept("smoke") == [path]
    rows = ablation_tables.rows_of(GRID, FOUND)
    beside = ablation_tables.write(GRID, FOUND, rows, tmp_path / "runs")
    for one in (figure, beside):
        assert one.stat().st_size > 10_000 and one.with_suffix(".pdf").is_file()
        drawn = read_csv(one.with_suffix(".csv"))
        assert [row["setting"] for row in drawn] == ["2", "4"]
        assert float(drawn[0]["change"]) == rows[0]["change"]
    assert ablation_tables.shown(path) == ablation_tables.lines(GRID, rows)
    assert ablation_tables.stale("smoke", figure.parent) == []
    figure.with_suffix(".csv").write_text("setting\n9\n")
    assert "smoke_search.width.csv is stale" in ablation_tables.stale("smoke", figure.parent)[0]
    named = ablation_tables.source_of(GRID, FOUND)
    assert "runs/ablations/search.width/{2,4}" in named and "seed 0 1" in named
    assert named.encode() in figure.read_bytes(), "in the picture's own title too"


def test_a_changed_preset_and_another_method_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_tables.results, "folder", lambda: tmp_path / "results")
    monkeypatch.setattr(ablation_tables, "FIGURES", str(tmp_path / "figures"))
    changed = Grid(**{**vars(GRID), "method": "srlm", "changed": "dpo.beta=0.3 rounds=2"})
    paths = [ablation_tables.keep(grid, FOUND)[0] for grid in (GRID, changed)]
    assert [path.name for path in paths] == [
        "search.width.json", "search.width_srlm_with_dpo.beta_0.3_rounds_2.json"
    ]  # fmt: skip
    assert ablation_tables.load(paths[1])[0] == changed
    assert ablation_tables.shown(paths[1])[0][0] == "search.width, srlm, with dpo.beta=0.3 rounds=2"


def test_the_page_says_where_grids_disagree_about_the_preset_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_tables.results, "folder", lambda: tmp_path / "results")
    monkeypatch.setattr(ablation_tables, "FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(ablation_tables, "kept", lambda kept=ablation_tables.kept: kept("smoke"))
    ablation_tables.keep(GRID, FOUND)
    ablation_tables.keep(Grid(**{**vars(GRID), "knob": "dpo.beta"}), FOUND)
    assert readme.ablations_block().endswith("Changes are paired by problem.\n")
    other = [run_of("2", k, "0000000000", "1100", 3) for k in (0, 1)]
    other += [run_of("4", k, "1111111000", "1110", 3) for k in (0, 1)]
    ablation_tables.keep(Grid(**{**vars(GRID), "knob": "dpo.beta"}), other)
    assert "M2 of the preset as it is stands at 50.0 and 70.0 %, by the grid" in (
        readme.ablations_block())  # fmt: skip


def test_runs_on_test_problems_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_tables.results, "folder", lambda: tmp_path)
    with pytest.raises(PSRError, match=r"leave data\.split at dev"):
        ablation_tables.keep(Grid(**{**vars(GRID), "split": "test"}), FOUND)
    assert not list(tmp_path.rglob("*"))
