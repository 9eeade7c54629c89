"""One process of a launch: it makes the call of each job that it is given.

accelerate launch ... -m psr_lib.launch.worker runs/paper-7b/seed0/psrlm/M1/launch
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from psr_lib.launch import job
from psr_lib.records import PSRError, write_json, write_text

MARK = "psr-progress "  # how the caller knows the lines that are progress
CALLER = "PSR_LAUNCHED_BY"  # the process that waits for the result
LOOK_AGAIN = 1.0  # seconds between two looks whether it lives
FUNCTIONS = {"train_sft": "psr_lib.sft", "train_sft_on_chosen": "psr_lib.sft",
             "train_dpo": "psr_lib.dpo", "train_prm": "psr_lib.prm"}  # fmt: skip


def main(folders: Sequence[str]) -> int:
    """Join the other processes and carry out every job; errors go to a file beside it."""
    end_with(int(os.environ.get(CALLER, 0)))
    from transformers import TrainingArguments

    from psr_lib import sharded

    # Made before any model is loaded: it joins the processes, and with DeepSpeed ZeRO-3 a model is
    # divided among them while it is read. It must live as long as the models do.
    joined = TrainingArguments(output_dir=folders[0], report_to="none")
    try:
        for folder in map(Path, folders):
            carry_out(folder)
        sharded.leave()
    except PSRError as error:
        write_text(folder / f"{job.ERROR}{joined.process_index:05}", str(error))
        return 1
    return 0


def carry_out(folder: Path) -> None:
    """Make the call of a job; the main process writes what it returns."""
    from psr_lib import sharded
    from psr_lib.checkpoints import Checkpoints
    from psr_lib.models import load_tokenizer

    found, call = job.read(folder)
    check_size(found["processes"], sharded.world_size())
    function = getattr(import_module(FUNCTIONS[found["function"]]), found["function"])
    if found["function"] in ("train_sft", "train_prm"):
        call["tokenizer"] = load_tokenizer(call["model_dir"], call.get("trust_remote_code", False))
    if found["every"]:
        call["checkpoints"] = Checkpoints(folder / job.CHECKPOINTS, found["every"])
    result = function(**call, on_progress=tell if sharded.is_main() else None)
    if sharded.is_main():
        write_json(folder / job.RESULT, result)


def check_size(wanted: int, found: int) -> None:
    """Raise PSRError where the launcher has started another number of processes than asked for."""
    if found != wanted:
        raise PSRError(f"training: {wanted} processes were asked for and {found} came together; "
                       "check train.processes, and distributed_type in the accelerate "
                       "configuration")  # fmt: skip


def tell(done: int, total: int, last: dict[str, Any]) -> None:
    """A line of progress to the caller."""
    print(MARK + json.dumps([done, total, last]), flush=True)


def end_with(caller: int) -> None:
    """End this process soon after that one has, whatever it is doing; 0 is on another host.

    Nobody would read the result, and a call that is made again waits for the folder. What is
    written counts only where it is whole.
    """

    def look() -> None:
        while _lives(caller):
            time.sleep(LOOK_AGAIN)
        os._exit(1)

    if caller:
        Thread(target=look, daemon=True).start()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
