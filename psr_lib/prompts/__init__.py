"""Prompt families: `paper` for real models, `compact` for the small laboratory.

A family renders the two prompts of the loop, the solver's and the judge's (paper Figures 4 and 5),
and what a step PRM reads; and it reads the judge's verdict. The hash of each template goes into
every manifest, because another template gives other numbers.

>>> load("compact").solve("Tom has 4 pens. How many?", ["Step 1: x."]).assistant
'Step 1: x.\\n'
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from psr_lib.records import JudgeExample, PSRError, hash_text
from psr_lib.steps import join_steps

FOLDER = Path(__file__).parent
VERDICT = re.compile(r"\[\[([AB])\]\]")
ROLES = ("solve", "judge", "segment", "score", "check")


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

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of each template."""
        return {role: hash_text(text) for role, text in self.templates.items()}

    def solve(self, question: str, prefix: Sequence[str] = ()) -> Prompt:
        """The solver's prompt; the steps so far stand at the beginning of its own turn."""
        user = fill(self.templates["solve"], question=question)
        return Prompt(user if self.chat else user + "\n", join_steps(prefix))

    def judge(
        self,
        question: str,
        prefix: Sequence[str],
        step_a: str,
        step_b: str,
        shots: Sequence[JudgeExample] = (),
    ) -> Prompt:
        """The judge's prompt for the ordered pair (A, B), after `shots` worked examples."""
        worked = [
            self.judge(s.question, s.prefix, s.step_a, s.step_b).user + f" {s.explanation}"
            for s in shots
        ]
        parts = {"question": question, "prefix": join_steps(prefix)}
        last = fill(self.templates["judge"], **parts, step_a=step_a, step_b=step_b)
        return Prompt("\n\n".join([*worked, last]))

    def check(self, tokenizer: Any, question: str, steps: Sequence[str], tag: str) -> str:
        """What a step PRM reads: the template's last line once a step, with the tag behind it.

        Where the family has no such template, the solver's prompt and the steps as they stand.
        """
        head, _, line = self.templates["check"].rpartition("\n")
        begin = fill(head, question=question) + "\n"
        if not line:
            line, begin = "{step}", self.render(tokenizer, self.solve(question))
        return begin + "".join(fill(line, step=step) + tag for step in steps)

    def render(self, tokenizer: Any, prompt: Prompt) -> str:
        """The text that the model continues; chat families pass through the chat template."""
        if not self.chat:
            return prompt.user + prompt.assistant
        turn = [{"role": "user", "content": prompt.user}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return text + prompt.assistant

    @staticmethod
    def verdict(text: str) -> str | None:
        """`A` or `B` from the last `[[A]]` or `[[B]]` of an explanation; None if unreadable."""
        found = VERDICT.findall(text)
        return found[-1] if found else None


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
    templates = {role: data[role] for role in ROLES}
    return Family(name=data["name"], chat=data["chat"], stop=data["stop"], templates=templates)
