"""Micro-batches of one update worked on side by side, each on one core.

The operations of a small model are too short to be shared by several cores: two micro-batches, each
on a core of its own, take little more than half of the time. Every gradient is computed apart and
they are added in the order of the micro-batches, so that a run can be repeated to the bit.
"""

import copy
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

SMALL = 20_000_000  # parameters; on larger models, with larger gradients, the cores work together
MOST = 4  # micro-batches at once; with more, Python's part of each holds up the others


def lanes(model: Any, devices: int) -> int:
    """How many micro-batches to work on at once: one a core for a small model on a CPU, else 1."""
    small = model.num_parameters() <= SMALL and model.device.type == "cpu" and devices == 1
    return min(MOST, torch.get_num_threads()) if small else 1


class SideBySide:
    """Mixed into a trainer of transformers: the micro-batches of an update wait for its last one.

    The losses of those that wait are reported as 0 and that of all as the last one's, so sums over
    an update are what they were.
    """

    lanes = 1
    _held: list[Any] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own; the cores are shared out among the lanes meanwhile."""
        if self.lanes < 2:
            return super().train(*args, **kwargs)
        threads = torch.get_num_threads()
        share = max(1, threads // self.lanes)
        torch.set_num_threads(share)
        start = torch.set_num_threads  # every thread has its own number
        try:
            with ThreadPoolExecutor(self.lanes, "lane", start, (share,)) as self._pool:
                return super().train(*args, **kwargs)
        finally:
            self._held = self._pool = None
            torch.set_num_threads(threads)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Hold the micro-batch; with the last one of an update, gradients of all."""
        if self.lanes < 2:
            return super().training_step(model, inputs, num_items_in_batch)
        self._held = [*(self._held or []), inputs]
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        held, self._held = self._held, None
        step = super().training_step
        parts = [Part(self) for _ in held]
        jobs = [
            self._pool.submit(part.step, step.__func__, model, micro, num_items_in_batch)
            for part, micro in zip(parts, held, strict=True)
        ]
        losses = [job.result() for job in jobs]
        for part in parts:
            part.give(self)
        return torch.stack(losses).sum()


class Part:
    """One micro-batch: a shallow copy of the trainer that keeps gradients and metrics to itself."""

    def __init__(self, trainer: Any):
        self.weights = [p for p in trainer.model.parameters() if p.requires_grad]
        self.gradients: list[torch.Tensor | None] = []
        self.trainer = copy.copy(trainer)
        self.trainer.accelerator = copy.copy(trainer.accelerator)
        self.trainer.accelerator.backward = self._backward
        self.trainer._metrics = {mode: defaultdict(list) for mode in trainer._metrics}
        self.trainer._total_train_tokens = 0

    def _backward(self, loss: torch.Tensor, **_: Any) -> None:
        self.gradients = list(torch.autograd.grad(loss, self.weights, allow_unused=True))

    def step(self, step: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
        """The trainer's own step on this micro-batch."""
        return step(self.trainer, *args)

    def give(self, trainer: Any) -> None:
        """Add gradients, metrics and counted tokens to the trainer's."""
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        trainer._total_train_tokens += self.trainer._total_train_tokens
        for mode, metrics in self.trainer._metrics.items():
            for name, values in metrics.items():
                trainer._metrics[mode][name] += values
            if "num_tokens" in metrics:  # a running total, the only metric that is no mean
                trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]
