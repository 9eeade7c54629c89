"""Kept summaries and their log, on a run folder made by hand; rises and leads by brute force."""

import json
import subprocess
import threading
from contextlib import suppress
from itertools import pairwise
from random import Random

import pytest

from psr_lib import manifest, readme_costs, results
from psr_lib.evaluation import accuracy_rows, read_csv, write_csv
from psr_lib.methods import EVALUATE, LAB, SEARCH
from psr_lib.records import PSRError, read_json, write_json, write_jsonl
from psr_lib.run_dirs import RunDir

SETS = {"easy": 4, "big": 3}


def fake_answers(chance):
    """Random outcomes, one row a problem, in no particular order."""
    rows = [
        {"problem_id": f"{name}/{k}", "benchmark": name, "strict": chance.random() < 0.5,
         "lenient": True, "steps": 2, "tokens": 9, "generated": 9, "finish": "eos"}
        for name, size in SETS.items() for k in range(size)
    ]  # fmt: skip
    chance.shuffle(rows)
    return rows


def fake_evaluation(home, chance):
    rows = fake_answers(chance)
    write_jsonl(home / "answers.jsonl.gz", rows)
    write_csv(home / "accuracy.csv", accuracy_rows(rows))
    skills = {f"skill_{name}": 0.5 for name in ("recompute", "copy", "compare")}
    asked = dict.fromkeys(skills, True)
    right = [{"problem_id": f"p/{k // 2}", "correct": chance.random() < 0.9,
              "verdict": "AB"[k % 2], **asked} for k in range(10)]  # fmt: skip
    write_jsonl(home / "verdicts.jsonl.gz", right)
    write_json(home / "judge.json", {"n": 10, "accuracy": 0.9, "first_position": 0.5, **skills})
    return rows


SEARCHED = {"problems": 10, "expansions": 60, "candidates": 360, "judge_made": 500, "ties": 18,
            "generated_tokens": 7200, "judged_tokens": 9000,
            "rollbacks": 12, "pairs": 40, "distinct": 2.44, "duplicate_rate": 0.6, "tie_rate": 0.3,
            "rollback_rate": 0.2, "judge_first_position": 0.45, "judge_unreadable": 0.0,
            "siblings_judge_accuracy": 0.72, "chosen_right": 0.5,
            "rejected_right": 0.1}  # fmt: skip

COUNTS = {SEARCH: SEARCHED, "01_data_prep": {"ift": 100, "eft": 200}, "02_init": {"updates": 9},
          "04_step_dpo": {"updates": 7, "used": 40}}  # fmt: skip


def fake_run(root, method="psrlm", seed=0, rounds=2, split="test", luck=0, preset="tiny"):
    """A complete run folder with random outcomes; returns the run and each evaluation's answers."""
    run, chance, answers = RunDir(preset, seed, root), Random(seed + luck), {}
    for key in results.run_stages(method, rounds):
        if key.stage == EVALUATE:
            answers[key.n] = fake_evaluation(run.folder(key), chance)
        params = {"seed": seed, "data": {"split": split}} if key.stage[:2] in ("01", "05") else {}
        write_json(run.folder(key) / manifest.NAME, {
            "format": 1, "status": "complete", "outputs": {}, "inputs": {},
            "code": {}, "params": params, "stage": key.stage, "method": key.method,
            "iteration": key.n, "git": {"commit": "0123456789abcdef", "dirty": False},
            "versions": {}, "device": "cpu", "wall_seconds": 60.0,
            "counts": COUNTS.get(key.stage, {}),
            "tokens": {"generated": 1_000_000, "judged": 2_000_000},
        })  # fmt: skip
    return run, answers


def test_a_summary_holds_every_models_numbers_and_outcomes(root):
    run, answers = fake_run(root / "runs")
    found = results.summarise(run, "psrlm", 2)
    assert [model["model"] for model in found["models"]] == ["M0", "M1", "M2"]
    for n, model in enumerate(found["models"]):
        by_id = sorted(answers[n], key=lambda row: row["problem_id"])
        easy = [row["strict"] for row in by_id if row["benchmark"] == "easy"]
        assert model["outcomes"]["easy"] == "".join(str(int(right)) for right in easy)
        assert model["accuracy"]["easy"] == sum(easy) / 4
        assert len(model["outcomes"]["big"]) == 3 and "search_accuracy" not in model
    assert len(found["stages"]) == len(results.run_stages("psrlm", 2)) == 8
    assert sum(stage["wall_seconds"] for stage in found["stages"]) == 480.0


def test_a_borrowing_control_counts_psrlms_search(root):
    run, _ = fake_run(root / "runs", "sft-chosen")
    made = [
        (s["stage"][:2], s["method"]) for s in results.summarise(run, "sft-chosen", 2)["stages"]
    ]
    assert ("03", "psrlm") in made and ("04", "sft-chosen") in made
    assert ("04", "psrlm") not in made


def test_what_the_laboratory_bought_with_the_searches_tokens_is_kept(root):
    run, answers = fake_run(root / "runs")
    rows = [{"way": way, "benchmark": "big", "problem_id": "big/1", "strict": way == "majority"}
            for way in ("greedy", "search", "majority")]  # fmt: skip
    write_jsonl(run.lab("psrlm", 1) / "ways_answers.jsonl.gz", rows)
    write_jsonl(run.eval("psrlm", 1) / "search_answers.jsonl.gz",
                [{**row, "benchmark": "easy", "strict": True} for row in answers[1]])  # fmt: skip
    table = [{"strategy": "pairwise", "judge": "itself", "model": "M1", "consistency": 0.8}]
    write_csv(run.lab("psrlm", 1) / "judge.csv", table)
    assert "laboratory" not in results.summarise(run, "psrlm", 2), "the laboratory is not complete"
    made = read_json(run.eval("psrlm", 1) / manifest.NAME)
    write_json(run.lab("psrlm", 1) / manifest.NAME, {**made, "stage": LAB})
    found = results.summarise(run, "psrlm", 2)
    model = found["models"][1]
    assert set(model["decodings"]) == {"search", "majority"}, "greedy stands beside them"
    assert model["decodings"]["majority"]["outcomes"] == {"big": "-1-", "easy": "----"}
    assert "1" in model["decodings"]["search"]["outcomes"]["easy"], "the evaluation's own search"
    assert found["laboratory"] == [table[0]]


def test_an_unfinished_run_names_its_first_missing_stage(root):
    run, _ = fake_run(root / "runs")
    (run.model("psrlm", 2) / manifest.NAME).unlink()
    with pytest.raises(PSRError, match="04_step_dpo M2 is not complete"):
        results.keep(run, "psrlm", 2)
    assert not (root / "data").exists()


def test_the_log_only_grows(root):
    log = root / "data/results" / results.LOG
    texts = []
    for seed, method in ((0, "psrlm"), (1, "psrlm"), (1, "sft-chosen"), (0, "psrlm")):
        run, _ = fake_run(root / "runs", method, seed)
        results.keep(run, method, 2)
        texts.append(log.read_text())
    assert all(new.startswith(old) and new != old for old, new in pairwise(texts))
    rows = read_csv(log)
    assert [(r["seed"], r["method"]) for r in rows] == [
        ("0", "psrlm"), ("1", "psrlm"), ("1", "sft-chosen"), ("0", "psrlm"),
    ]  # fmt: skip
    assert tuple(rows[0]) == results.LOG_COLUMNS and rows[0]["models"] == "M1-M2"
    first = results.load("tiny", 0, "psrlm")["models"]
    assert float(rows[0]["mean_first"]) == pytest.approx(first[1]["accuracy"]["mean"], abs=1e-4)
    assert float(rows[0]["mean_last"]) == pytest.approx(first[2]["accuracy"]["mean"], abs=1e-4)
    assert rows[0]["params_hash"] == rows[1]["params_hash"]  # the seed is no setting
    assert results.kept("tiny") == [(0, "psrlm"), (1, "psrlm"), (1, "sft-chosen")]


def test_two_that_keep_at_once_lose_no_line(root, monkeypatch):
    found = results.summarise(fake_run(root / "runs")[0], "psrlm", 2)
    results.folder().mkdir(parents=True)
    both = threading.Barrier(2, timeout=0.5)

    def slowly(path, text):
        with suppress(threading.BrokenBarrierError):
            both.wait()  # until the other has read the log too, if it may
        path.write_text(text)

    monkeypatch.setattr(results, "write_text", slowly)
    writers = [threading.Thread(target=results._log, args=[found]) for _ in range(2)]
    for work in (threading.Thread.start, threading.Thread.join):
        for writer in writers:
            work(writer)
    assert len(read_csv(results.folder() / results.LOG)) == 2


def test_dev_runs_are_kept_but_not_logged(root):
    run, _ = fake_run(root / "runs", seed=100, split="dev")
    path = results.keep(run, "psrlm", 2)
    assert json.loads(path.read_text())["split"] == "dev"
    assert not (root / "data/results" / results.LOG).exists()
    with pytest.raises(PSRError, match="no summary of tiny seed 7 psrlm"):
        results.load("tiny", 7, "psrlm")


def test_what_was_set_apart_from_the_preset_is_kept_and_shown(root):
    run, _ = fake_run(root / "runs")
    assert read_json(results.keep(run, "psrlm", 2))["changed"] == {}
    assert "settings changed" not in readme_costs.presets_block()
    for path in run.path.rglob(manifest.NAME):
        made = read_json(path)
        if "data" in made["params"]:
            made["params"] |= {"data": {"split": "test", "ift": 7}, "rounds": 2}
            write_json(path, made)
    assert read_json(results.keep(run, "psrlm", 2))["changed"] == {"data.ift": 7, "rounds": 2}
    assert "cpu, 2 of its settings changed |" in readme_costs.presets_block()


def test_kept_summaries_do_not_make_a_run_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    assert manifest.git_state() == {"commit": None, "dirty": None}
    names = ["-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], [*names, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    (tmp_path / "data/results").mkdir(parents=True)
    (tmp_path / "data/results/kept.json").write_text("{}")
    assert manifest.git_state()["dirty"] is False and len(manifest.git_state()["commit"]) == 40
    (tmp_path / "data/other.json").write_text("{}")
    assert manifest.git_state()["dirty"] is True
