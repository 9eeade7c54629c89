"""Micro-batches worked on at once change the time that training takes, and nothing else."""

# ruff: noqa: F811  (`folder` is a fixture of test_training)

import os
import signal
import threading

import pytest
import torch
from test_training import folder, same, train, weights  # noqa: F401 (folder is a fixture)

from psr_lib import dpo, sft, side_by_side, training
from psr_lib.engines import forks
from psr_lib.records import PSRError
from psr_lib.training import plan_batch


@pytest.fixture
def two_lanes(monkeypatch):
    for trainer in (sft, dpo):
        monkeypatch.setattr(trainer, "lanes", lambda model, devices: 2)


@pytest.mark.parametrize("kind", ["sft", "dpo", "chosen"])
def test_training_is_the_same(kind, folder, tmp_path, monkeypatch):
    changes = {"batch": 4, "epochs": 2, "lr": 1e-3}
    alone = train(kind, folder, tmp_path / "alone", **changes)
    for trainer in (sft, dpo):
        monkeypatch.setattr(trainer, "lanes", lambda model, devices: 2)
    beside = [train(kind, folder, tmp_path / f"beside{k}", **changes) for k in range(2)]
    assert alone["batch"]["accumulation"] < beside[0]["batch"]["accumulation"] == 4
    first, second = (weights(run["model"]) for run in beside)
    assert same(first, second)
    before, after = weights(folder), weights(alone["model"])
    assert all(torch.allclose(after[k], first[k], atol=1e-5) for k in after)
    assert any(not torch.allclose(before[k], first[k], atol=1e-4) for k in before)
    assert alone["tokens"] == beside[0]["tokens"]
    for one, two in zip(alone["history"], beside[0]["history"], strict=True):
        assert one.keys() == two.keys()
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
        assert one["num_tokens"] == two["num_tokens"]
    assert beside[0]["history"] == [{**row} for row in beside[1]["history"]]


def test_micro_batches_meet_in_time(folder, tmp_path, two_lanes, monkeypatch):
    """Two are under way together: each waits for the other before it goes on."""
    monkeypatch.setattr(forks, "POSSIBLE", False)
    meeting, met = threading.Barrier(2, timeout=60), []
    step = sft.SFTTrainer.training_step

    def waiting(self, *args, **kwargs):
        met.append(meeting.wait())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(sft.SFTTrainer, "training_step", waiting)
    train("sft", folder, tmp_path, batch=4, max_steps=1)
    assert sorted(met) == [0, 0, 1, 1]


def test_a_failure_is_raised_and_leaves_no_thread(folder, tmp_path, two_lanes, monkeypatch):
    threads, names = torch.get_num_threads(), {t.name for t in threading.enumerate()}

    def fail(self, *args, **kwargs):
        raise ValueError("lost")

    monkeypatch.setattr(sft.SFTTrainer, "training_step", fail)
    with pytest.raises(ValueError, match="lost"):
        train("sft", folder, tmp_path, batch=4, max_steps=1)
    assert torch.get_num_threads() == threads
    assert {t.name for t in threading.enumerate()} <= names


@pytest.fixture
def crews(monkeypatch):
    made, crew = [], side_by_side.crew
    monkeypatch.setattr(side_by_side, "crew", lambda *a: made.append(crew(*a)) or made[-1])
    return made


forked = pytest.mark.skipif(
    not forks.POSSIBLE or torch.cuda.is_available(), reason="forks cannot compute gradients here"
)


@forked
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_processes_and_threads_train_alike_to_the_bit(
    kind,
    folder,
    tmp_path,
    two_lanes,
    crews,
    monkeypatch,
):
    changes = {"batch": 4, "epochs": 2, "lr": 1e-3}
    processes = train(kind, folder, tmp_path / "processes", **changes)
    monkeypatch.setattr(forks, "POSSIBLE", False)
    threads = train(kind, folder, tmp_path / "threads", **changes)
    assert [type(c).__name__ for c in crews] == ["Processes", "Threads"]
    assert not crews[0].workers.children
    assert same(weights(processes["model"]), weights(threads["model"]))
    assert processes["history"] == threads["history"] and processes["tokens"] == threads["tokens"]


@forked
def test_a_dead_process_is_one_clear_error(folder, tmp_path, two_lanes, crews, monkeypatch):
    updates = []

    def kill(self, *args, **_):
        updates.append(args)
        os.kill(crews[-1].workers.children[1].pid, signal.SIGKILL)

    monkeypatch.setattr(training.Report, "on_step_end", kill)
    with pytest.raises(PSRError, match="one of its processes died"):
        train("sft", folder, tmp_path, batch=4, epochs=2)
    assert len(updates) == 1 and not crews[0].workers.children


def test_without_gradients_in_forks_there_are_threads(
    folder,
    tmp_path,
    two_lanes,
    crews,
    monkeypatch,
):
    def refuse(*_):
        raise RuntimeError("Unable to handle autograd's threading with forks")

    monkeypatch.setattr(side_by_side, "Processes", refuse)
    train("sft", folder, tmp_path, batch=4, max_steps=1)
    assert [type(c).__name__ for c in crews] == ["Threads"]


def test_lanes_are_for_small_models_on_a_cpu(monkeypatch):
    class Model:
        device = torch.device("cpu")

        def __init__(self, size):
            self.num_parameters = lambda: size

    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert side_by_side.lanes(Model(10**6), 1) == side_by_side.MOST
    assert side_by_side.lanes(Model(10**8), 1) == 1
    assert side_by_side.lanes(Model(10**6), 2) == 1
    monkeypatch.setattr(Model, "device", torch.device("meta"))
    assert side_by_side.lanes(Model(10**6), 1) == 1


def test_plan_leaves_each_lane_two_micro_batches():
    assert plan_batch(16, 1, 100, 4096, 2).accumulation == 4
    assert plan_batch(32, 1, 1000, 4096, 2).micro == 4
    assert plan_batch(2, 1, 100, 4096, 2).accumulation == 2
    assert plan_batch(1, 1, 100, 4096, 2).accumulation == 1
