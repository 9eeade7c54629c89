"""Prompt families: `paper` for real models, `compact` for the small laboratory, `qwen` for a base.

A family renders the two prompts of the loop, the solver's and the judge's (paper Figures 4 and 5),
what a step PRM reads, and reads the judge's verdict; for the baseline `srlm` also the prompt that
scores a whole solution, whose points it reads. The hash of each template goes into every manifest,
because another template gives other numbers.

>>> load("compact").solve("Tom has 4 pens. How many?", ["Step 1: x."]).assistant
'Step 1: x.\\n'
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from psr_lib.prompts.slots import VERDICT, Marks, fit, marks_of, one_line, plain
from psr_lib.records import JudgeExample, PSRError, hash_text
from psr_lib.steps import join_steps

FOLDER = Path(__file__).parent
ROLES = ("solve", "judge", "segment", "score", "check")
MOST = 5  # points of a whole solution, at most (additive rubric of Yuan et al., arXiv 2401.10020)
POINTS = r"""
    \b{mark}\b[*_`\s]*+(?:\([^()\n]*+\)[*_`\s]*+)?  # "Score", "**Score**", "Score (out of 5)"
    (?::|=|\bis\b|\bof\b)[*_`\s<\[({{$\\]*+(?:boxed\{{)?  # ": ", " is ", ": **", ": \boxed{{"
    (?:[\d.\s+]*+=\s*+)?                             # "1 + 1 + 1 = "
    (?P<points>[-+]?\d+(?:\.\d+)?)(?!\d)
    (?P<other>[*_`\s}})\]$>]*+(?:/|out\ of)\s*(?!5\b)\d)?  # "/ 10" is another scale
"""


@dataclass(frozen=True)
class Prompt:
    """What the model reads: the user's turn, and the beginning of its own turn to continue."""

    user: str
    assistant: str = ""


@dataclass(frozen=True)
class Family:
    """One set of templates with its stop string and its way to the model's input text."""

    name: str
    chat: bool
    stop: str
    templates: dict[str, str]
    points_mark: str = "Score"

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of each template."""
        return {role: hash_text(text) for role, text in self.templates.items()}

    def solve(self, question: str, prefix: Sequence[str] = ()) -> Prompt:
        """The solver's prompt; the steps so far stand at the beginning of its own turn."""
        user = fill(self.templates["solve"], question=question)
        return Prompt(user if self.chat else user + "\n", join_steps(map(self._line, prefix)))

    def judge(
        self,
        question: str,
        prefix: Sequence[str],
        step_a: str,
        step_b: str,
        shots: Sequence[JudgeExample] = (),
    ) -> Prompt:
        """The judge's prompt for the ordered pair (A, B), after `shots` worked examples.

        Question and steps are data: whatever they hold, they stay in their slots (`slots`).
        """
        worked = [
            self.judge(s.question, s.prefix, s.step_a, s.step_b).user + f" {s.explanation}"
            for s in shots
        ]
        steps = [fit(self._line(step), self.marks) for step in prefix]
        parts = {"question": question, "step_a": step_a, "step_b": step_b}  # or whole solutions
        parts = {name: fit(text, self.marks) for name, text in parts.items()}
        last = fill(self.templates["judge"], **parts, prefix=join_steps(steps))
        return Prompt("\n\n".join([*worked, last]))

    @property
    def marks(self) -> Marks:
        """What no data in a prompt of this family may look like."""
        return marks_of(tuple(self.templates.values()))

    def _line(self, step: str) -> str:
        """A step so far; where a line break ends a step there is none in it."""
        return one_line(step) if self.stop == "\n" else step

    def score(self, question: str, solution: str) -> Prompt:
        """The prompt that scores a whole solution; points that it states itself are defused."""
        parts = {"question": fit(question, self.marks), "solution": fit(solution, self.marks)}
        parts = {name: self._defuse_points(text) for name, text in parts.items()}
        return Prompt(fill(self.templates["score"], **parts))

    def _defuse_points(self, text: str) -> str:
        """Again until nothing is left: points may stand inside what comes before other points."""
        size, pattern = len(self.points_mark), points_pattern(self.points_mark)
        while pattern.search(text):
            text = pattern.sub(lambda m: f"({m[0][:size]}){m[0][size:]}", text)
        return text

    def points(self, text: str) -> float | None:
        """Points of a justification: the last that it states; None if unreadable or not 0 to 5.

        >>> load("paper").points("Relevant, and complete. **Score:** 4/5")
        4.0
        """
        found = list(points_pattern(self.points_mark).finditer(text))
        if not found or found[-1]["other"]:
            return None
        points = float(found[-1]["points"])
        return points if 0 <= points <= MOST else None

    def check(self, tokenizer: Any, question: str, steps: Sequence[str], tag: str) -> str:
        """What a step PRM reads: the template's last line once a step, with the tag behind it.

        Where the family has no such template, the solver's prompt and the steps as they stand.
        """
        head, _, line = self.templates["check"].rpartition("\n")
        begin = fill(head, question=plain(tokenizer, question)) + "\n"
        if not line:
            line, begin = "{step}", self.render(tokenizer, self.solve(question))
        shown = [plain(tokenizer, self._line(step)) for step in steps]
        return begin + "".join(fill(line, step=step) + tag for step in shown)

    def render(self, tokenizer: Any, prompt: Prompt) -> str:
        """The text that the model continues; chat families pass through the chat template.

        Templates hold no special tokens, so those in a prompt came with its data: they are broken,
        and only what the chat template adds is read as such. Raises PSRError where a chat family
        meets a model without a chat template.
        """
        user, begun = plain(tokenizer, prompt.user), plain(tokenizer, prompt.assistant)
        if not self.chat:
            return user + begun
        if getattr(tokenizer, "chat_template", "") is None:  # clients of servers need none
            raise PSRError(f"prompts {self.name}: the model has no chat template; take one tuned "
                           "to follow instructions, or prompts=compact")  # fmt: skip
        turns = [{"role": "user", "content": user}]
        if system := self.templates.get("system"):
            turns.insert(0, {"role": "system", "content": system})
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text + begun

    @staticmethod
    def verdict(text: str) -> str | None:
        """`A` or `B` from the last `[[A]]` or `[[B]]` of an explanation; None if unreadable."""
        found = VERDICT.findall(text)
        return found[-1] if found else None


@lru_cache
def points_pattern(mark: str) -> re.Pattern:
    """What states points after this mark."""
    return re.compile(POINTS.format(mark=re.escape(mark)), re.IGNORECASE | re.VERBOSE)


def fill(template: str, **parts: str) -> str:
    """Put the parts into their slots in one pass, so a part can never open a slot of its own."""
    return re.sub(r"\{(\w+)\}", lambda match: parts.get(match.group(1), match.group(0)), template)


def load(name: str) -> Family:
    """The family of that name; raises PSRError listing the known ones."""
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in FOLDER.glob("*.yaml"))
        raise PSRError(f"prompts: no family {name!r}; choose one of {known}")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    templates = {role: data[role] for role in (*ROLES, *({"system"} & data.keys()))}
    return Family(
        name=data["name"], chat=data["chat"], stop=data["stop"], templates=templates,
        points_mark=data["points_mark"],
    )  # fmt: skip
