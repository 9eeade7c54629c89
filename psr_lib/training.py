"""What supervised and preference training share: batches, arguments, progress, what is kept.

Both run on TRL's trainers. A global batch is always a random draw of the rows; inside it the rows
are ordered by length before it is cut into micro-batches, so little is spent on padding while the
gradient stays that of the random batch.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback

from psr_lib import checkpoints, sharded
from psr_lib.checkpoints import Checkpoints
from psr_lib.engines.calls import one_line
from psr_lib.models import (
    check_dtype,
    device_of,
    load_model,
    out_of_memory,
    quiet,
    save_adapter,
    save_model,
)
from psr_lib.records import PSRError, seed_of, writing
from psr_lib.side_by_side import SideBySide

Progress = Callable[[int, int, dict[str, float]], None]  # updates done, updates in all, last log
MICRO_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 32768}  # padded tokens of one forward pass
LOGITS = 8  # bytes of a token's logit and of its gradient, for each word of the vocabulary
LOGS = 200  # rows of a history, about
CPU_MEMORY = 4 * 2**30  # bytes that a forward pass on a CPU is cut for; a laptop has 16 GiB
LARGE = 500_000_000  # parameters from which activations are recomputed to save GPU memory


class TrainSettings(Protocol):
    """What is read of a preset's `sft` and `dpo` sections; `batch` is the global batch in rows."""

    epochs: int
    lr: float
    batch: int
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_length: int
    lora_r: int
    lora_alpha: int
    bf16: bool


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is cut: batch = micro x accumulation x devices, in rows."""

    batch: int
    micro: int
    accumulation: int
    devices: int


def plan_batch(batch: int, devices: int, row_tokens: int, budget: int, lanes: int = 1) -> BatchPlan:
    """The largest micro-batch that divides the batch and whose padded tokens fit the budget.

    Where several are worked on at once there are two for each of the lanes, if the batch is large
    enough: a lane with the longest rows has the shortest too. Raises PSRError where the batch does
    not divide over the devices.
    """
    if batch < 1 or batch % devices:
        raise PSRError(f"batch {batch} does not divide over {devices} devices; take a multiple")
    share = batch // devices
    most = min(budget // row_tokens, share if lanes < 2 else share // (2 * lanes))
    fits = [m for m in range(1, share + 1) if share % m == 0 and m <= max(1, most)]
    return BatchPlan(batch, max(fits), share // max(fits), devices)


def capped(most: int, device: str, memory: int, vocabulary: int) -> int:
    """`most` tokens of a forward pass, or as many as have logits in a quarter of the memory.

    `memory`: bytes of a GPU; a CPU has CPU_MEMORY.
    """
    if device == "mps":
        return most
    return min(most, (CPU_MEMORY if device == "cpu" else memory) // 4 // (LOGITS * vocabulary))


def budget(model: Any, most: int) -> int:
    """Padded tokens of one forward pass of a model where it is: `most` or fewer, as `capped`."""
    device, memory = sharded.device(model), 0
    if device == "cuda":
        memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return capped(most, device, memory, model.config.get_text_config().vocab_size)


class BatchesByLength(Sampler[int]):
    """Row numbers in global batches drawn at random by seed and epoch, each longest row first."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer as each epoch begins."""
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(seed_of(self.seed, "epoch", self.epoch)).shuffle(order)
        for start in range(0, len(order), self.batch):
            yield from sorted(order[start : start + self.batch], key=lambda i: -self.lengths[i])


class LocalTrainer(SideBySide):
    """Mixed into TRL's trainers: our order of rows, one device a process, and no message to anybody
    else's server."""

    sampler: BatchesByLength

    def __init__(self, *, args: Any, **kwargs: Any) -> None:
        # A lone process that sees several GPUs would spread over them, a micro-batch on each; TRL
        # refuses to, and the global batch would no longer be the preset's.
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(args=args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> BatchesByLength:
        return self.sampler

    def _send_telemetry(self) -> None:
        pass


class Report(TrainerCallback):
    """Keeps every log row of a run and passes progress on."""

    def __init__(self, on_progress: Progress | None) -> None:
        self.history: list[dict[str, float]] = []
        self.on_progress = on_progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The rows of a run that goes on from a checkpoint; none otherwise."""
        rows = [row for row in state.log_history if "loss" in row]
        self.history[:] = [{"step": row["step"], **row} for row in rows]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """A log row without the trainer's closing summary."""
        if logs and "loss" in logs:
            self.history.append({"step": state.global_step, **logs})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One update done."""
        if self.on_progress:
            last = self.history[-1] if self.history else {}
            self.on_progress(state.global_step, state.max_steps, last)


def arguments(
    settings: TrainSettings, plan: BatchPlan, *, work: Path, seed: int, updates: int, model: Any
) -> dict[str, Any]:
    """The trainer's arguments that both kinds share, every default that matters set by name."""
    device = sharded.device(model)
    if settings.bf16:
        check_dtype("bfloat16", torch.device(device))
    large = device == "cuda" and sharded.parameters(model) > LARGE
    return {
        "output_dir": str(work),
        "max_steps": updates,
        "per_device_train_batch_size": plan.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "learning_rate": settings.lr,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": int(updates * settings.warmup_ratio),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": 1.0,  # usual; the paper is silent
        "optim": "adamw_torch_fused" if device in ("cpu", "cuda") else "adamw_torch",
        "bf16": settings.bf16,
        "gradient_checkpointing": large and not sharded.recomputes(),
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "dataloader_num_workers": 0,  # rows are ready token ids: a worker costs more than it saves
        "logging_steps": max(1, updates // LOGS),
        "logging_nan_inf_filter": False,  # a loss that is not a number must be seen
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "max_length": None,  # longer rows were counted and left out before
    }


def lora(settings: TrainSettings) -> Any:
    """LoRA on every linear layer but the output head; None trains all weights."""
    if not settings.lora_r:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,  # the reference must equal the policy before the first update
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def policy(model_dir: Path | str, device: str, trust_remote_code: bool) -> Any:
    """The model to train: 32-bit weights, because 16-bit ones swallow small updates.

    What shards the weights puts them on its devices itself.
    """
    if sharded.launched():
        place = None if sharded.shards() else PartialState().device
        return load_model(model_dir, "float32", place, trust_remote_code)
    return load_model(model_dir, "float32", device_of(device), trust_remote_code)


def updates_of(rows: int, settings: TrainSettings, max_steps: int | None) -> int:
    """Optimiser updates of a run: `max_steps`, or whole epochs with the last batch kept."""
    return max_steps or settings.epochs * -(-rows // settings.batch)


def context(config: Any, settings: TrainSettings) -> int:
    """Longest row in tokens: the setting, or the model's own limit where that is smaller."""
    return min(settings.max_length, getattr(config, "max_position_embeddings", None) or 10**9)


@contextmanager
def workspace(out_dir: Path | str) -> Iterator[Path]:
    """`out_dir/tmp`, empty, for what training keeps meanwhile; progress bars are off inside.

    All of a training happens inside, the reference's pass and the saving too. Raises PSRError where
    memory runs out there, and where the disk is full or may not be written to.
    """
    work = Path(out_dir) / "tmp"
    sharded.wait()  # for all to be done with what went before
    if sharded.is_main():
        shutil.rmtree(work, ignore_errors=True)  # a killed run may have left its own
    try:
        with writing(work), quiet(), _memory():
            if sharded.is_main():
                work.mkdir(parents=True)
            sharded.wait()
            yield work
    finally:
        if sharded.is_main():
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _memory() -> Iterator[None]:
    """One line for whatever says, within the block, that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise PSRError(f"training: memory ran out ({one_line(error, 120)}); lower max_length, set "
                       "lora_r, or take a larger machine") from error  # fmt: skip


def run(
    trainer: Any,
    report: Report,
    plan: BatchPlan,
    counts: dict[str, int],
    kept: Checkpoints | None = None,
) -> dict[str, Any]:
    """Train, and say what was done; `tokens` counts what went through the model, no padding.

    With checkpoints kept it goes on from the last one. `counts` say how many rows an epoch had
    twice: where its last micro-batches do not go round, the others get rows of its beginning.
    Raises PSRError where the loss stops being a finite number.
    """
    trainer.remove_callback(PrinterCallback)
    trained = sharded.parameters(trainer.model, trained=True)
    last, spent = checkpoints.prepare(trainer, kept)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=last)
    seconds = spent + time.perf_counter() - start
    history = report.history
    bad = next((r["step"] for r in history if not torch.isfinite(torch.tensor(r["loss"]))), None)
    if bad is not None:
        raise PSRError(f"training: the loss is not finite at update {bad}; lower the learning rate")
    round_of = plan.micro * plan.devices
    twice = {"twice": -len(trainer.train_dataset) % round_of} if plan.devices > 1 else {}
    return {
        "history": history,
        "counts": counts | twice,
        "updates": trainer.state.global_step,
        "batch": asdict(plan),
        "tokens": int(trainer._total_train_tokens),
        "seconds": seconds,
        "trained_parameters": trained,
        "device": sharded.device(trainer.model),
    }


def keep(
    trainer: Any, tokenizer: Any, model_dir: Path | str, out_dir: Path | str, merge: bool
) -> dict[str, str]:
    """Save what was trained: full weights in `out_dir/model`, a LoRA adapter in `out_dir/adapter`.

    With `merge` a LoRA run leaves full weights too, so that every engine can load them. Of several
    processes the main one saves.
    """
    out_dir = Path(out_dir)
    saved: dict[str, str] = {}
    model = sharded.whole_model(trainer)
    if model is None:
        return saved
    model.config.use_cache = True  # off while training; whoever loads the model wants to generate
    if hasattr(model, "merge_and_unload"):
        saved["adapter"] = str(save_adapter(model, model_dir, out_dir / "adapter"))
        model = model.merge_and_unload() if merge else None
    if model is not None:
        saved["model"] = str(save_model(model, tokenizer, out_dir / "model"))
    for name in {"model", "adapter"} - saved.keys():  # an earlier run's; the two must agree
        shutil.rmtree(out_dir / name, ignore_errors=True)
    return saved
