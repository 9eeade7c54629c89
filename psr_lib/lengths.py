"""How long questions and prompts are, in tokens, before any row of a run exists."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

from psr_lib import benchmarks, manifest, prompts
from psr_lib.expected import Fact
from psr_lib.presets import Preset
from psr_lib.prices import LETTERS
from psr_lib.records import PSRError

SAMPLE = 50  # questions of each benchmark that are counted
QUESTION = Fact(196 / LETTERS, "4 letters a token, and 196 letters, the mean of MATH-500")


@dataclass(frozen=True)
class Lengths:
    """Tokens of a question, and of the solver's and the judge's prompt without their parts."""

    question: Fact
    solve: int
    judge: int

    def asked(self, before: float = 0.0) -> float:
        """What the solver reads: the problem and the steps before."""
        return self.solve + self.question.value + before

    def shown(self, before: float, step: float) -> float:
        """What the judge reads: the problem, the steps before and two next steps."""
        return self.judge + self.question.value + before + 2 * step


def of(preset: Preset) -> Lengths:
    """The lengths under a preset, by its tokenizer and benchmarks where these are at hand."""
    count, by = counter(preset.model.base)
    family, asked = prompts.load(preset.prompts), questions(preset)
    place = f"questions in {preset.data.benchmark_folder}, {by}"
    question = Fact(mean(map(count, asked)), place) if asked else QUESTION
    return Lengths(question, count(family.solve("").user), count(family.judge("", [], "", "").user))


def counter(base: str) -> tuple[Callable[[str], int], str]:
    """What counts a text's tokens, and its name: the base model's tokenizer, or a rule of thumb."""
    folder = manifest.root() / Path(base).expanduser()
    if not folder.is_dir():
        return lambda text: round(len(text) / LETTERS), "4 letters a token"
    from psr_lib.models import load_tokenizer, text_ids

    tokenizer: Any = load_tokenizer(folder)
    return lambda text: len(text_ids(tokenizer, text)), "by its tokenizer"


def questions(preset: Preset) -> list[str]:
    """Some questions of the preset's benchmarks; none where these are not on this machine."""
    data = preset.data
    if data.benchmark_folder == "hub":
        return []
    try:
        sets = benchmarks.load(manifest.root() / data.benchmark_folder, data.benchmarks, 0,
                               data.split)  # fmt: skip
    except PSRError:
        return []
    return [row.question for row in chain(*(rows[:SAMPLE] for rows in sets.values()))]
