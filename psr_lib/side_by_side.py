"""Micro-batches of one update worked on side by side, each on one core.

The operations of a small model are too short to be shared by several cores; two micro-batches, each
on a core of its own, do not wait for each other. The work is dealt out the same way
each time and the gradients are added in one order, so that a run can be repeated to the bit.
"""

import copy
import mmap
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from psr_lib.engines import forks
from psr_lib.engines.base import EngineError
from psr_lib.records import PSRError

if TYPE_CHECKING:
    from transformers import Trainer  # what it is mixed into
else:
    Trainer = object

MOST = 4  # micro-batches at once
DIED = "training: one of its processes died in the middle of an update; run again"


def lanes(model: Any, devices: int) -> int:
    """How many micro-batches to work on at once: one a core for a small model on a CPU, else 1.

    On a larger one, with larger gradients, the cores work together.
    """
    apart = forks.small(model) and model.device.type == "cpu" and devices == 1
    return min(MOST, torch.get_num_threads()) if apart else 1


@dataclass(frozen=True)
class Share:
    """One lane's micro-batches of an update, and what the trainer would scale their losses by."""

    micros: list[dict[str, Any]]
    items: Any
    accumulation: int

    def packed(self) -> "Share":
        """With arrays for tensors, which would travel between processes as files."""
        return self._each(torch.Tensor, torch.Tensor.numpy)

    def unpacked(self) -> "Share":
        """`packed` undone."""
        return self._each(np.ndarray, torch.from_numpy)

    def _each(self, kind: type, change: Callable[[Any], Any]) -> "Share":
        def changed(value: Any) -> Any:
            return change(value) if isinstance(value, kind) else value

        micros = [{name: changed(value) for name, value in m.items()} for m in self.micros]
        return replace(self, micros=micros, items=changed(self.items))


@dataclass
class Found:
    """What came of a share; `gradients` are sums over its micro-batches, one a weight.

    Where they lie in shared memory they are True or False: whether there is one.
    """

    losses: list[float] = field(default_factory=list)
    metrics: dict[str, dict[str, list]] = field(default_factory=dict)
    tokens: int = 0
    gradients: list[Any] = field(default_factory=list)


class SideBySide(Trainer):
    """Mixed into a trainer of transformers: the micro-batches of an update wait for its last one.

    The losses of those that wait are reported as 0 and that of all as the last one's, so sums over
    an update are what they were.
    """

    lanes = 1
    _held: list[Any] | None = None
    _crew: Any = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own; the cores are shared out among the lanes meanwhile.

        Raises PSRError where one of the processes dies.
        """
        if self.lanes < 2:
            return super().train(*args, **kwargs)
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // self.lanes))
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._crew:
                self._crew.end()
            self._held = self._crew = None
            torch.set_num_threads(threads)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Hold the micro-batch; with the last one of an update, gradients of all."""
        if self.lanes < 2:
            return super().training_step(model, inputs, num_items_in_batch)
        self._held = [*(self._held or []), inputs]
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        held, self._held = self._held, None
        model.train()  # as the step does, which other processes make; logs go by it
        step: Any = super().training_step
        self._crew = self._crew or crew(self, model, step.__func__)
        steps = self.current_gradient_accumulation_steps
        dealt = [Share(micros, num_items_in_batch, steps) for micros in deal(held, self.lanes)]
        found = self._crew.work(dealt)
        for one in found:
            give(one, self, self._crew.weights)
        return torch.tensor(sum(loss for one in found for loss in one.losses))


def deal(micros: Sequence[Any], lanes: int) -> list[list[Any]]:
    """Micro-batches in falling length to lanes, there and back again, which makes shares alike."""
    shares: list[list[Any]] = [[] for _ in range(lanes)]
    for k, micro in enumerate(micros):
        turn, place = divmod(k, lanes)
        shares[lanes - 1 - place if turn % 2 else place].append(micro)
    return [share for share in shares if share]


def give(found: Found, trainer: Any, weights: Sequence[torch.Tensor]) -> None:
    """Add gradients, metrics and counted tokens to the trainer's."""
    for weight, gradient in zip(weights, found.gradients, strict=True):
        if gradient is not None:
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
    trainer._total_train_tokens += found.tokens
    for mode, metrics in found.metrics.items():
        for name, values in metrics.items():
            trainer._metrics[mode][name] += values
        if "num_tokens" in metrics:  # a running total, the only metric that is no mean
            trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]


def crew(trainer: Any, model: Any, step: Any) -> "Threads | Processes":
    """Processes where they are possible: threads hold each other up whenever Python has the word.

    A fork cannot compute gradients if this process has done so before; then there are threads.
    """
    if forks.POSSIBLE:
        try:
            return Processes(trainer, model, step)
        except RuntimeError:
            pass
    return Threads(trainer, model, step)


class Threads:
    """Lanes as threads of this process."""

    def __init__(self, trainer: Any, model: Any, step: Any):
        self.trainer, self.model, self.step = trainer, model, step
        self.weights = trained(model)
        start = torch.set_num_threads  # every thread has its own number
        self.pool = ThreadPoolExecutor(trainer.lanes, "lane", start, (torch.get_num_threads(),))

    def work(self, dealt: list[Share]) -> list[Found]:
        """What comes of each share."""
        return list(self.pool.map(self._do, dealt))

    def _do(self, share: Share) -> Found:
        return do(share, self.trainer, self.model, self.step, self.weights)

    def end(self) -> None:
        """Let the threads end."""
        self.pool.shutdown()


class Processes:
    """Lanes as forks of this process, which read the weights and leave gradients in common memory.

    This process computes no gradient itself, so that it can fork again for the next training.
    """

    def __init__(self, trainer: Any, model: Any, step: Any):
        """Raises RuntimeError where forks cannot compute gradients."""
        self.trainer, self.model, self.step = trainer, model, step
        self.weights, self.threads = trained(model), torch.get_num_threads()
        for weight, place in zip(self.weights, common(self.weights), strict=True):
            place.copy_(weight.data)
            weight.data = place
        self.left = [common(self.weights) for _ in range(trainer.lanes)]
        self.workers = forks.Workers(trainer.lanes, self._serve)
        try:
            for child in self.workers.children:
                child.ask(None)
            for child in self.workers.children:
                child.result(lambda rows: None)
        except BaseException:
            self.end()
            raise

    def work(self, dealt: list[Share]) -> list[Found]:
        """What comes of each share. Raises PSRError where a process dies."""
        asked = self.workers.children[: len(dealt)]
        try:
            for k, (child, share) in enumerate(zip(asked, dealt, strict=True)):
                child.ask((k, share.packed()))
            found = [child.result(lambda rows: None) for child in asked]
        except EngineError as error:
            raise PSRError(DIED) from error
        for one, places in zip(found, self.left, strict=False):
            pairs = zip(one.gradients, places, strict=True)
            one.gradients = [place if there else None for there, place in pairs]
        return found

    def _serve(self, asked: tuple[int, Share] | None, _: Any) -> Found | None:
        """In a fork: work on a share; without one, see whether gradients can be computed at all."""
        torch.set_num_threads(self.threads)
        if asked is None:
            one = torch.ones(1, requires_grad=True)
            torch.autograd.grad(one.sum(), one)
            return None
        lane, share = asked
        found = do(share.unpacked(), self.trainer, self.model, self.step, self.weights)
        for place, gradient in zip(self.left[lane], found.gradients, strict=True):
            if gradient is not None:
                place.copy_(gradient)
        found.gradients = [gradient is not None for gradient in found.gradients]
        return found

    def end(self) -> None:
        """Stop the processes; the weights come back to this one's own memory."""
        self.workers.end()
        for weight in self.weights:
            weight.data, weight.grad = weight.data.clone(), None


def do(share: Share, trainer: Any, model: Any, step: Any, weights: list[torch.Tensor]) -> Found:
    """The trainer's own step on each micro-batch, gradients and metrics kept apart from it."""
    found = Found(metrics={mode: defaultdict(list) for mode in trainer._metrics})

    def backward(loss: torch.Tensor, **_: Any) -> None:
        fresh = torch.autograd.grad(loss, weights, allow_unused=True)
        pairs = zip(found.gradients or [None] * len(weights), fresh, strict=True)
        found.gradients = [b if a is None else a if b is None else a.add_(b) for a, b in pairs]

    apart = copy.copy(trainer)
    apart.accelerator = copy.copy(trainer.accelerator)
    apart.accelerator.backward = backward
    apart.current_gradient_accumulation_steps = share.accumulation
    apart._metrics, apart._total_train_tokens = found.metrics, 0
    found.losses = [float(step(apart, model, micro, share.items)) for micro in share.micros]
    found.tokens = apart._total_train_tokens
    return found


def trained(model: Any) -> list[torch.Tensor]:
    """The weights that training changes."""
    return [p for p in model.parameters() if p.requires_grad]


def common(weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of the weights' shapes and types in memory that forks share with this process."""
    sizes = [-(-w.numel() * w.element_size() // 64) * 64 for w in weights]  # whole cache lines
    memory = torch.frombuffer(mmap.mmap(-1, max(64, sum(sizes))), dtype=torch.uint8)
    ends = pairwise([0, *accumulate(sizes)])
    return [
        memory[start : start + w.numel() * w.element_size()].view(w.dtype).view(w.shape)
        for w, (start, _) in zip(weights, ends, strict=True)
    ]
