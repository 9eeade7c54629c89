"""Token by token, how far a policy has moved from its reference on a step pair (paper Eq. 8).

Eq. 8 sums log pi(token) - log ref(token) over the scored tokens of each step; here they are kept
apart, so that one sees where the update went.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from psr_lib.models import load_model
from psr_lib.token_rows import StepRow

SIDES = ("chosen", "rejected")
LARGEST = 4 * 2**30  # bytes of weights that are loaded once more for a display


@dataclass(frozen=True)
class TokenLogs:
    """Log-probabilities of a step's scored tokens, in nats, one a token."""

    policy: list[float]
    reference: list[float]

    @property
    def ratios(self) -> list[float]:
        """log pi - log ref of each token; above 0 the policy gives it more."""
        return [p - r for p, r in zip(self.policy, self.reference, strict=True)]


def token_logs(model: Any, prompt: Sequence[int], scored: Sequence[int]) -> list[float]:
    """log p of each of the `scored` ids after the prompt and those before it, in nats."""
    ids = torch.tensor([[*prompt, *scored]], device=model.device)
    with torch.inference_mode():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
    logs = torch.log_softmax(logits, -1)
    return logs.gather(-1, ids[0, len(prompt) :, None])[:, 0].tolist()


def affordable(*folders: Path | str) -> bool:
    """Whether these models are small enough to be loaded once more, only to show some tokens."""
    sizes = [sum(f.stat().st_size for f in Path(p).glob("*.safetensors")) for p in folders]
    return max(sizes) <= LARGEST


def log_ratios(
    policy: Path | str, reference: Path | str, rows: Sequence[StepRow], trust: bool = False
) -> list[dict[str, TokenLogs]]:
    """Of each row, `chosen` and `rejected` -> their tokens' log-probabilities under both models.

    On the CPU in 32 bits, one model after the other, so that what a GPU holds is left alone.
    Raises PSRError where a model folder is not complete.
    """
    new, old = (_logs_of(folder, rows, trust) for folder in (policy, reference))
    return [{side: TokenLogs(mine[side], theirs[side]) for side in SIDES}
            for mine, theirs in zip(new, old, strict=True)]  # fmt: skip


def _logs_of(
    folder: Path | str, rows: Sequence[StepRow], trust: bool
) -> list[dict[str, list[float]]]:
    model = load_model(folder, "float32", "cpu", trust)
    return [
        {side: token_logs(model, row.prompt_ids, getattr(row, f"{side}_ids")) for side in SIDES}
        for row in rows
    ]
