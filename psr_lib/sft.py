"""Supervised fine-tuning M0 -> M1 on IFT and EFT rows mixed (paper sections 3.2 and 4).

The loss is the mean over the response's tokens of a global batch; prompts carry none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from psr_lib import sharded
from psr_lib.checkpoints import Checkpoints
from psr_lib.models import check_tokenizer, load_tokenizer
from psr_lib.prompts import Family
from psr_lib.records import IFTExample, JudgeExample, ScoreExample, StepPair
from psr_lib.side_by_side import lanes
from psr_lib.token_rows import LabelledRow, SFTRow, columns, sft_rows, step_rows
from psr_lib.training import (
    MICRO_TOKENS,
    BatchesByLength,
    BatchPlan,
    LocalTrainer,
    Progress,
    Report,
    TrainSettings,
    arguments,
    budget,
    context,
    keep,
    lora,
    plan_batch,
    policy,
    run,
    updates_of,
    workspace,
)


class ResponseTrainer(LocalTrainer, SFTTrainer):
    """TRL's trainer on rows that already hold input ids and labels."""


def train_sft(
    model_dir: Path | str,
    tokenizer: Any,
    rows: Sequence[IFTExample | JudgeExample | ScoreExample],
    settings: TrainSettings,
    out_dir: Path | str,
    seed: int,
    family: Family,
    on_progress: Progress | None = None,
    *,
    max_steps: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    merge: bool = True,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Any]:
    """Fine-tune the model of `model_dir` on the rows and save it in `out_dir/model`.

    `max_steps` fixes the number of updates instead of `settings.epochs` (control `ift-more`).
    Returns history (a row a log step), counts of rows, updates, batch, tokens, seconds and paths.
    Raises PSRError where no row fits `settings.max_length` or the model folder is incomplete.
    """
    model = policy(model_dir, device, trust_remote_code)
    check_tokenizer(tokenizer, model_dir)
    kept, counts = sft_rows(tokenizer, family, rows, context(model.config, settings))
    with workspace(out_dir) as work:
        trainer, plan, report = make_trainer(
            model, tokenizer, kept, settings,
            work=work, seed=seed, max_steps=max_steps, on_progress=on_progress,
        )  # fmt: skip
        result = run(trainer, report, plan, counts, checkpoints)
        return result | keep(trainer, tokenizer, model_dir, out_dir, merge)


def train_sft_on_chosen(
    model_dir: Path | str,
    pairs: Sequence[StepPair],
    settings: TrainSettings,
    out_dir: Path | str,
    seed: int,
    family: Family,
    on_progress: Progress | None = None,
    *,
    max_steps: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    merge: bool = True,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Any]:
    """Control `sft-chosen`: likelihood of the chosen step only, on the rows that DPO would use.

    Same rows, order, batch and number of updates as `train_dpo` with the same settings and seed.
    """
    tokenizer = load_tokenizer(model_dir, trust_remote_code)
    model = policy(model_dir, device, trust_remote_code)
    kept, counts = step_rows(tokenizer, family, pairs, context(model.config, settings))
    chosen = [row.on_chosen() for row in kept]
    with workspace(out_dir) as work:
        trainer, plan, report = make_trainer(
            model, tokenizer, chosen, settings,
            work=work, seed=seed, max_steps=max_steps, on_progress=on_progress,
        )  # fmt: skip
        result = run(trainer, report, plan, counts, checkpoints)
        return result | keep(trainer, tokenizer, model_dir, out_dir, merge)


def make_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[SFTRow | LabelledRow],
    settings: TrainSettings,
    *,
    work: Path,
    seed: int,
    max_steps: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[ResponseTrainer, BatchPlan, Report]:
    """A trainer ready to run, how it cuts its batches, and where its log rows will be."""
    longest = max(row.length for row in rows)
    side = lanes(model, sharded.world_size())
    most = budget(model, MICRO_TOKENS[sharded.device(model)])
    plan = plan_batch(settings.batch, sharded.world_size(), longest, most, side)
    updates, report = updates_of(len(rows), settings, max_steps), Report(on_progress)
    shared = arguments(settings, plan, work=work, seed=seed, updates=updates, model=model)
    trainer = ResponseTrainer(
        model=model,
        args=SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, **shared),
        train_dataset=Dataset.from_list([columns(row) for row in rows]),
        processing_class=tokenizer,
        callbacks=[report],
        peft_config=lora(settings),
    )
    trainer.sampler = BatchesByLength([row.length for row in rows], settings.batch, seed)
    trainer.lanes = side if plan.accumulation > 1 else 1
    return trainer, plan, report
