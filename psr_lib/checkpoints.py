"""Checkpoints while a training runs, so that one that was killed goes on from the last.

A checkpoint counts once `complete.json` lies in it, which is written when every process has written
its part, and as long as its files are what that says (those over 64 MiB are sampled). Optimiser,
schedule and place in the data come back with the weights, so a resumed run makes the updates that
were left.

The files are torch's own and some of them are pickled, so they may run code: a training goes on in
a run folder of one's own alone. What is kept of a run, its models, holds none.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from psr_lib import manifest, sharded
from psr_lib.records import PSRError, read_json, write_json

MARK = "complete.json"
KEPT = 2  # the last ones; one alone would be removed before the next is complete


@dataclass(frozen=True)
class Checkpoints:
    """Where they are kept, and after how many updates each is written."""

    folder: Path
    every: int


class Complete(TrainerCallback):
    """Marks a checkpoint as complete, with what the trainer does not keep itself."""

    def __init__(self, trainer: Any, spent: float) -> None:
        self.trainer, self.spent, self.started = trainer, spent, time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Every process has written its part."""
        sharded.wait()
        if sharded.is_main():
            seconds = self.spent + time.perf_counter() - self.started
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / MARK, {"tokens": self.trainer._total_train_tokens,
                                       "seconds": seconds, "files": _files(folder)})  # fmt: skip


def _files(folder: Path) -> dict[str, str]:
    """The hash of every file of a checkpoint; a large one's, of samples, begins with its size."""
    names = (name for name in manifest.files_in(folder, ()) if name != MARK)
    return {name: manifest.fingerprint(folder / name) for name in names}


def _fault(folder: Path) -> str:
    """Why a checkpoint is of no use, '' if it is what was written."""
    try:
        kept = read_json(folder / MARK)["files"]
    except (PSRError, KeyError):
        return "not complete"
    now = _files(folder)
    wrong = (name for name in {**kept, **now} if kept.get(name) != now.get(name))
    return next((f"{name} is not what was written" for name in wrong), "")


def _clear(folder: Path) -> None:
    """Leave the last checkpoint that is whole, and name those that were complete once."""
    found = sorted(folder.glob("checkpoint-*"), key=_updates, reverse=True)
    wrong = {path: _fault(path) for path in found}
    last = next((path for path in found if not wrong[path]), None)
    for path in found:
        if (path / MARK).is_file() and wrong[path]:
            print(f"checkpoint {_updates(path)} is left out: {wrong[path]}", flush=True)
        if path != last:
            shutil.rmtree(path, ignore_errors=True)


def _updates(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def updates_kept(folder: Path) -> int:
    """Updates of the last complete checkpoint; 0 where there is none."""
    marks = folder.glob(f"checkpoint-*/{MARK}")
    return max((_updates(mark.parent) for mark in marks), default=0)


def prepare(trainer: Any, kept: Checkpoints | None) -> tuple[str | None, float]:
    """Make a trainer write checkpoints; the last one to go on from, and the seconds it took.

    Half-written and damaged ones are removed.
    """
    if kept is None:
        return None, 0.0
    sharded.wait()
    if sharded.is_main():
        _clear(kept.folder)
    sharded.wait()
    last = updates_kept(kept.folder)
    found = kept.folder / f"checkpoint-{last}"
    before = read_json(found / MARK) if last else {"tokens": 0, "seconds": 0.0}
    sharded.wait()
    trainer._total_train_tokens = before["tokens"]
    trainer.args.output_dir, trainer.args.save_steps = str(kept.folder), kept.every
    trainer.args.save_strategy, trainer.args.save_total_limit = SaveStrategy.STEPS, KEPT
    trainer.add_callback(Complete(trainer, before["seconds"]))
    return (str(found) if last else None), before["seconds"]
