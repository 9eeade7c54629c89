"""What part of an update's global batch a micro-batch is: how the batch is cut shall not matter.

transformers gives every micro-batch of an update the same weight. Eq. 8 is a mean over pairs, the
terms beside it are means over tokens: micro-batches have unlike numbers of tokens, and the last one
of an epoch may have fewer pairs.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from psr_lib import beside

if TYPE_CHECKING:
    from transformers import Trainer  # what it is mixed into
else:
    Trainer = object


def counts(batch: Mapping[str, Tensor]) -> Tensor:
    """Pairs, scored tokens of their chosen steps, scored tokens of replayed EFT, [3].

    `completion_mask` is [2 x pairs, tokens], the chosen steps first.
    """
    mask = batch["completion_mask"]
    pairs = len(mask) // 2
    replayed = (batch["replay_labels"][:, 1:] != beside.UNSCORED).sum() if (
        "replay_labels" in batch) else 0  # fmt: skip
    return torch.tensor([float(pairs), float(mask[:pairs, 1:].sum()), float(replayed)])


class Weighted(Trainer):
    """Mixed into a trainer of pairs: `parts` says how much each mean of a micro-batch weighs."""

    _whole: Tensor | None = None

    def _get_num_items_in_batch(self, batch_samples: Sequence[Any], device: Any) -> Tensor | None:
        """The `counts` of an update, of all processes; the trainer hands them to every loss."""
        if not batch_samples:
            return None
        found = torch.stack([counts(batch) for batch in batch_samples]).sum(0).to(device)
        if self.args.world_size > 1:
            found = self.accelerator.gather(found).view(-1, len(found)).sum(0)
        return found

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The trainer's own loss, which reads `parts` of this update."""
        self._whole = num_items_in_batch
        return super().compute_loss(model, inputs, return_outputs)

    def weigh(self, factors: Mapping[str, float]) -> None:
        """Multiply the metrics of the micro-batch at hand whose names begin so.

        They are logged as means over micro-batches; with `parts` these are means over pairs.
        """
        trainer: Any = self
        mode = "train" if trainer.model.training else "eval"
        for name, values in trainer._metrics[mode].items():
            for start, factor in factors.items():
                if values and name.startswith(start):
                    values[-1] *= factor

    def parts(self, inputs: Mapping[str, Tensor]) -> tuple[float, float, float]:
        """By what to multiply means over pairs, chosen tokens and replayed tokens.

        The trainer divides a loss by the micro-batches of an update and by the processes; 1 where
        all are alike.
        """
        if self._whole is None:
            return 1.0, 1.0, 1.0
        alike = self.current_gradient_accumulation_steps * self.args.world_size
        pairs, chosen, replayed = (alike * counts(inputs) / self._whole.cpu().clamp(min=1)).tolist()
        return pairs, chosen, replayed
