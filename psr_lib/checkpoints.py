"""Checkpoints while a training runs, so that one that was killed goes on from the last.

A checkpoint counts once `complete.json` lies in it, which is written when every process has written
its part. Optimiser, schedule and place in the data come back with the weights, so a resumed run
makes the updates that were left.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from psr_lib import sharded
from psr_lib.records import read_json, write_json

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
            row = {"tokens": self.trainer._total_train_tokens, "seconds": seconds}
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / MARK, row)


def updates_kept(folder: Path) -> int:
    """Updates of the last complete checkpoint; 0 where there is none."""
    marks = folder.glob(f"checkpoint-*/{MARK}")
    return max((int(mark.parent.name.rpartition("-")[2]) for mark in marks), default=0)


def prepare(trainer: Any, kept: Checkpoints | None) -> tuple[str | None, float]:
    """Make a trainer write checkpoints; the last one to go on from, and the seconds it took.

    Half-written ones are removed.
    """
    if kept is None:
        return None, 0.0
    last = updates_kept(kept.folder)
    found = kept.folder / f"checkpoint-{last}"
    sharded.wait()
    for path in kept.folder.glob("checkpoint-*") if sharded.is_main() else ():
        if path != found:
            shutil.rmtree(path, ignore_errors=True)
    before = read_json(found / MARK) if last else {"tokens": 0, "seconds": 0.0}
    sharded.wait()
    trainer._total_train_tokens = before["tokens"]
    trainer.args.output_dir, trainer.args.save_steps = str(kept.folder), kept.every
    trainer.args.save_strategy, trainer.args.save_total_limit = SaveStrategy.STEPS, KEPT
    trainer.add_callback(Complete(trainer, before["seconds"]))
    return (str(found) if last else None), before["seconds"]
