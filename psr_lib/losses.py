"""Losses of step-wise DPO by name (paper section 3.4, Eq. 8): TRL's own, or a function of yours.

    @register("loss", "squared")
    def squared(ratios):
        return (ratios.beta * (ratios.chosen - ratios.rejected) - 1) ** 2

TRL computes those that it has. A function gets the log-ratios of a batch and returns a loss a row;
it can be given soft labels too (`softened`), which TRL's cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional

from psr_lib import registry
from psr_lib.records import PSRError
from psr_lib.registry import register


@dataclass(frozen=True)
class Ratios:
    """Log-ratios log pi(step) - log ref(step), summed over a step's tokens, in nats, [rows]."""

    chosen: Tensor
    rejected: Tensor
    beta: float

    def swapped(self) -> "Ratios":
        """The same rows with the other step preferred."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)


PairLoss = Callable[[Ratios], Tensor]

for _name in registry.KINDS["loss"].built_in:
    register("loss", _name)(_name)  # as TRL calls it


def sigmoid(ratios: Ratios) -> Tensor:
    """-log sigmoid(A - B) of Eq. 8, [rows]; what TRL computes under this name."""
    return -functional.logsigmoid(ratios.beta * (ratios.chosen - ratios.rejected))


def softened(loss: PairLoss, ratios: Ratios, labels: Tensor | None) -> Tensor:
    """C x loss + (1 - C) x loss of the swapped pair, [rows] (CREAM, Wang et al. 2024).

    `labels` holds C, how sure it is that the chosen step is the better one; None is 1 everywhere.
    """
    if labels is None:
        return loss(ratios)
    return labels * loss(ratios) + (1 - labels) * loss(ratios.swapped())


def own(settings: Any) -> PairLoss | None:
    """The function that `dpo.loss` and `dpo.soft_labels` ask for, None where TRL computes it.

    Raises PSRError where soft labels are asked of a loss that only TRL has.
    """
    found = registry.find("loss", settings.loss)
    if callable(found) or settings.soft_labels == "none":
        return found if callable(found) else None
    if found != "sigmoid":
        raise PSRError(f"dpo.soft_labels={settings.soft_labels}: TRL's loss {found!r} takes none; "
                       "set dpo.loss to sigmoid or to a loss of your own")  # fmt: skip
    return sigmoid
