"""Step-wise DPO, M[n-1] -> M[n] (paper section 3.4, Eq. 6-8).

For a prefix s_1..s_{l-1} of question x and its best and worst next step,

    A = beta log pi(best | x, prefix) / ref(best | x, prefix),  B likewise for worst
    loss = -log sigmoid(A - B) + nll_weight * (mean -log pi of the chosen step's tokens)

with sums over the tokens of step l only, and means over the pairs (or tokens) of a global batch.
The paper has no second term (nll_weight 0). Another loss of the two log-ratios, soft labels and
replayed EFT (`losses`, `beside`) are off unless asked for.
"""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset, load_from_disk
from transformers import AutoConfig
from trl import DPOConfig, DPOTrainer

from psr_lib import beside, losses, sharded
from psr_lib.checkpoints import Checkpoints
from psr_lib.models import load_tokenizer
from psr_lib.prompts import Family
from psr_lib.records import JudgeExample, ScoreExample, StepPair
from psr_lib.side_by_side import lanes
from psr_lib.token_rows import SFTRow, StepRow, columns, sft_rows, step_rows
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
from psr_lib.weighting import Weighted


class DPOSettings(TrainSettings, Protocol):
    """What is read of a preset's `dpo` section besides the optimiser's settings."""

    beta: float
    nll_weight: float
    loss: str
    soft_labels: str
    replay: float


class StepDPOTrainer(Weighted, LocalTrainer, DPOTrainer):
    """TRL's DPO on rows that already hold token ids.

    TRL would tokenise prompt and step together and end every step in end-of-text; both would
    change what Eq. 8 scores.
    """

    pair_loss: losses.PairLoss | None = None  # in the place of TRL's
    anchor, replay = 0.0, 0.0  # weights of the terms beside Eq. 8

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known: list[str] = self._signature_columns or []
        self._signature_columns = list(dict.fromkeys([*known, *beside.COLUMNS]))  # type: ignore[assignment]

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss and metrics; where something is beside the pairs, what it adds."""
        pair, chosen, replayed = self.parts(inputs)
        of_trl = (0.0 if self.pair_loss else pair, self.anchor * chosen)
        self.loss_weights = list(of_trl[: len(self.loss_types)])
        loss = self._with_more(model, inputs, return_outputs, pair, replayed)
        self.weigh({"rewards/": pair, "logps/": pair, "replay/": replayed})
        return loss

    def _with_more(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool, pair: float, replayed: float
    ) -> Any:
        if self.pair_loss is None and not self.replay:
            return super()._compute_loss(model, inputs, return_outputs)
        seen: list[Any] = []

        def watched(**kwargs: Any) -> Any:
            seen.append(model(**kwargs))
            return seen[-1]

        pairs = {name: value for name, value in inputs.items() if name not in beside.COLUMNS}
        loss = super()._compute_loss(watched, pairs, False)
        if self.pair_loss:
            ratios = self._ratios(seen[0].log_probs, inputs)
            loss = loss + losses.softened(self.pair_loss, ratios, inputs.get("label")).mean() * pair
        return loss + replayed * self._replayed(model, inputs) if self.replay else loss

    def _ratios(self, log_probs: Any, inputs: dict[str, Any]) -> losses.Ratios:
        places = inputs["input_ids"].shape[1] - 1  # the first token is predicted by none
        chosen, rejected = log_probs[:, -places:].sum(1).chunk(2)
        return losses.Ratios(
            chosen - inputs["ref_chosen_logps"], rejected - inputs["ref_rejected_logps"], self.beta
        )

    def _replayed(self, model: Any, inputs: dict[str, Any]) -> Any:
        tokenizer: Any = self.processing_class
        pad = tokenizer.pad_token_id
        found = beside.replay_loss(model, inputs, pad)
        self._total_train_tokens += beside.tokens(inputs, pad)
        self._metrics["train"]["replay/nll"].append(found.item())
        return self.replay * found


def train_dpo(
    model_dir: Path | str,
    reference_dir: Path | str,
    pairs: Sequence[StepPair],
    settings: DPOSettings,
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
    labels: Mapping[str, float] | None = None,
    replay: Sequence[JudgeExample | ScoreExample] = (),
) -> dict[str, Any]:
    """Train the policy of `model_dir` against the frozen `reference_dir`; save `out_dir/model`.

    `labels`: soft labels by the pairs' ids; `replay`: EFT of which a row stands beside each pair.
    Returns history (loss, rewards, margins, accuracies, log-probabilities a log step), counts of
    rows (identical siblings and too long ones are left out), updates, batch, tokens, seconds and
    paths. Raises PSRError where no pair is left or a model folder is incomplete.
    """
    tokenizer = load_tokenizer(model_dir, trust_remote_code)
    model = policy(model_dir, device, trust_remote_code)
    most = context(model.config, settings)
    rows, counts = step_rows(tokenizer, family, pairs, most)
    again = sft_rows(tokenizer, family, replay, most)[0] if replay else []
    reference = None
    # Weights are sharded when training begins, after the reference's pass: that needs its own then.
    if sharded.shards() or Path(reference_dir).resolve() != Path(model_dir).resolve():
        reference = policy(reference_dir, device, trust_remote_code)
    with workspace(out_dir) as work:
        trainer, plan, report = make_trainer(
            model, reference, tokenizer, rows, settings,
            work=work, seed=seed, max_steps=max_steps, on_progress=on_progress, labels=labels,
            replay=again,
        )  # fmt: skip
        reference = None
        gc.collect()  # it and what wraps it hold each other
        result = run(trainer, report, plan, counts, checkpoints)
        return result | keep(trainer, tokenizer, model_dir, out_dir, merge)


def planned_updates(
    model_dir: Path | str,
    pairs: Sequence[StepPair],
    settings: DPOSettings,
    family: Family,
    trust_remote_code: bool = False,
) -> int:
    """Updates that `train_dpo` will make on these pairs; for controls at equal updates."""
    config = AutoConfig.from_pretrained(
        model_dir, local_files_only=True, trust_remote_code=trust_remote_code
    )
    limit = context(config, settings)
    rows, _ = step_rows(load_tokenizer(model_dir, trust_remote_code), family, pairs, limit)
    return updates_of(len(rows), settings, None)


def make_trainer(
    model: Any,
    reference: Any | None,
    tokenizer: Any,
    rows: Sequence[StepRow],
    settings: DPOSettings,
    *,
    work: Path,
    seed: int,
    max_steps: int | None = None,
    on_progress: Progress | None = None,
    labels: Mapping[str, float] | None = None,
    replay: Sequence[SFTRow] = (),
) -> tuple[StepDPOTrainer, BatchPlan, Report]:
    """A trainer with the reference's log-probabilities computed; `reference` None = the policy's.

    The reference runs once over all rows before training; the trainer does not hold it after that.
    """
    pair_tokens = 2 * max(row.length for row in rows)  # both siblings share a forward pass
    pair_tokens = max(pair_tokens, max((row.length for row in replay), default=0))
    own = losses.own(settings)
    side = lanes(model, sharded.world_size())
    most = budget(model, MICRO_TOKENS[sharded.device(model)])
    plan = plan_batch(settings.batch, sharded.world_size(), pair_tokens, most, side)
    updates, report = updates_of(len(rows), settings, max_steps), Report(on_progress)
    shared = arguments(settings, plan, work=work, seed=seed, updates=updates, model=model)
    with sharded.dividing_references():
        trainer = StepDPOTrainer(
            model=model,
            ref_model=reference,
            args=DPOConfig(
                precompute_ref_log_probs=True, **loss_arguments(settings, own), **shared
            ),
            train_dataset=on_disk(rows, beside.columns(rows, labels, replay, seed), work / "pairs"),
            processing_class=tokenizer,
            callbacks=[report],
            peft_config=lora(settings),
        )
    _let_go(trainer)
    trainer.pair_loss, trainer.anchor = own, settings.nll_weight
    trainer.replay = settings.replay if replay else 0.0
    if labels is not None or replay:
        trainer.data_collator = beside.Collator(trainer.data_collator, tokenizer.pad_token_id)
    trainer.sampler = BatchesByLength([row.length for row in rows], settings.batch, seed)
    trainer.lanes = side if plan.accumulation > 1 else 1
    return trainer, plan, report


def _let_go(trainer: Any) -> None:
    """Drop the reference, which accelerate keeps in a list of the models that it has prepared."""
    prepared = trainer.accelerator._models
    prepared[:] = [model for model in prepared if model is not trainer.ref_model]
    trainer.ref_model = None


def loss_arguments(settings: DPOSettings, own: losses.PairLoss | None = None) -> dict[str, Any]:
    """TRL's names for Eq. 8 and the anchor: `sft` is the token mean over the chosen steps.

    Beside a loss of one's own TRL's has no weight; its metrics and the anchor stay.
    """
    kinds = ["sigmoid" if own else settings.loss, "sft"][: 2 if settings.nll_weight else 1]
    return {
        "beta": settings.beta,
        "loss_type": kinds,
        "loss_weights": [0.0 if own else 1.0, settings.nll_weight][: len(kinds)],
    }


def on_disk(rows: Sequence[StepRow], more: Sequence[dict[str, Any]], folder: Path) -> Dataset:
    """The rows and what is beside them as a dataset in a folder, where the reference's
    log-probabilities are kept too."""
    if sharded.is_main():
        both = [columns(row) | extra for row, extra in zip(rows, more, strict=True)]
        Dataset.from_list(both).save_to_disk(folder)
    sharded.wait()
    return load_from_disk(folder)
