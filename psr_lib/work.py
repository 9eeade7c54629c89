"""What a plan counts: parts of stages in tokens, and the case that they are counted for."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from psr_lib import expected, lengths
from psr_lib.expected import Expected
from psr_lib.presets import Preset
from psr_lib.run_dirs import Key


@dataclass(frozen=True)
class Work:
    """A part of a stage in tokens; for a device it is to generate, search, read or train (`kind`).

    `generated` and `judged` are written, in solutions and in verdicts; `read` goes through the
    model before that, prompts of siblings once; `trained` goes forward and backward. `most` is what
    `judged` would be if all siblings differed; `base` is the model that works, '' for the preset's;
    `section` of the preset says how it is trained.
    """

    key: Key
    what: str
    kind: str
    generated: float = 0.0
    judged: float = 0.0
    read: float = 0.0
    trained: float = 0.0
    most: float = 0.0
    base: str = ""
    section: str = ""

    @property
    def written(self) -> float:
        """Tokens of solutions and verdicts."""
        return self.generated + self.judged


class Models(dict[int, Expected]):
    """What is expected of M[n], by n: looked up when a count asks for it, so that it holds the
    models that a plan rests on and no other."""

    def __init__(self, look_up: Callable[[int], Expected]) -> None:
        super().__init__()
        self.look_up = look_up

    def __missing__(self, n: int) -> Expected:
        self[n] = self.look_up(n)
        return self[n]

    def __call__(self, n: int) -> Expected:
        return self[n]


@dataclass(frozen=True)
class Case:
    """What is planned: a preset, what is expected of each M[n] under it, and how long its rows are.

    `large` says that the paper's 72B is nearer than its 7B; `shipped`, that EFT need not be made.
    """

    preset: Preset
    model: Models
    rows: lengths.Lengths
    large: bool = False
    shipped: bool = False


def case_of(
    preset: Preset, large: bool = False, skip: Collection[int] = (), shipped: bool = False
) -> Case:
    """The case of a preset; kept runs of the seeds in `skip` tell nothing."""
    model = Models(partial(expected.of_model, preset, large=large, skip=skip))
    return Case(preset, model, lengths.of(preset), large, shipped)
