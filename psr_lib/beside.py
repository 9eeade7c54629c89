"""What a row of step-wise DPO may carry beside its pair: a soft label, and a replayed EFT row.

Replay keeps the judge while the policy is trained on steps alone (rehearsal; the paper's rounds
have none): every pair has one row of EFT beside it, and its SFT loss is added with the weight
`dpo.replay`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from psr_lib.records import PSRError, seed_of
from psr_lib.token_rows import SFTRow, StepRow

COLUMNS = ("label", "replay_ids", "replay_labels")
UNSCORED = -100  # a label that carries no loss


def columns(
    rows: Sequence[StepRow], labels: Mapping[str, float] | None, replay: Sequence[SFTRow], seed: int
) -> list[dict[str, Any]]:
    """The columns beside each pair's own, {} where there are none.

    EFT rows come in a random order, all once before one comes again. Raises PSRError where a pair
    has no label.
    """
    found: list[dict[str, Any]] = [{} for _ in rows]
    for row, more in zip(rows, found, strict=True):
        if labels is not None and row.id not in labels:
            raise PSRError(f"dpo.soft_labels: no search of pair {row.id} is kept; run 03 again")
        more |= {} if labels is None else {"label": labels[row.id]}
    for more, again in zip(found, drawn(replay, len(rows), seed), strict=False):
        more["replay_ids"] = again.prompt_ids + again.completion_ids
        more["replay_labels"] = [UNSCORED] * len(again.prompt_ids) + again.completion_ids
    return found


def drawn(replay: Sequence[SFTRow], count: int, seed: int) -> list[SFTRow]:
    """So many rows, in shuffled passes over all."""
    rng = random.Random(seed_of("replay", seed))
    found: list[SFTRow] = []
    while replay and len(found) < count:
        found += rng.sample(list(replay), len(replay))
    return found[:count]


@dataclass(frozen=True)
class Collator:
    """A batch of pairs as TRL makes it, and what its rows carry beside."""

    pairs: Any
    pad: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch; `label` [rows], `replay_ids` and `replay_labels` [rows, tokens]."""
        batch = self.pairs(examples)
        if "label" in examples[0]:
            batch["label"] = torch.tensor([example["label"] for example in examples])
        for name, fill in (("replay_ids", self.pad), ("replay_labels", UNSCORED)):
            if name in examples[0]:
                found = [torch.tensor(example[name]) for example in examples]
                batch[name] = pad_sequence(found, batch_first=True, padding_value=fill)
        return batch


def replay_loss(model: Any, batch: Mapping[str, Tensor], pad: int) -> Tensor:
    """Mean -log pi of the response tokens of the batch's EFT rows, as in SFT."""
    ids, labels = batch["replay_ids"], batch["replay_labels"]
    seen = model(input_ids=ids, attention_mask=attended(ids, labels, pad), labels=labels,
                 use_cache=False, fused_lm_head=True)  # fmt: skip
    scored = (labels[:, 1:] != UNSCORED).sum()
    return -seen.log_probs[:, 1 - ids.shape[1] :].sum() / scored


def attended(ids: Tensor, labels: Tensor, pad: int) -> Tensor:
    """1 where a token stands, 0 on the padding behind it; a pad token that is scored is none."""
    filled = (ids != pad) | (labels != UNSCORED)
    return filled.flip(1).cumsum(1).flip(1).clamp(max=1)


def tokens(batch: Mapping[str, Tensor], pad: int) -> int:
    """Tokens of the batch's EFT rows, padding left out."""
    return int(attended(batch["replay_ids"], batch["replay_labels"], pad).sum())
