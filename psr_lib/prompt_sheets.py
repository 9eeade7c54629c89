"""Figures 3 to 5 of the paper: the prompts as they are rendered, with an example from the run.

Figure 3 cuts a solution into steps, Figure 4 solves, Figure 5 judges two next steps. A family that
lacks one (the small laboratory's data come in steps) is shown with the `paper` family's.
"""

from dataclasses import dataclass
from textwrap import fill as fill_words

from psr_lib import prompts
from psr_lib.prompts import Family, fill
from psr_lib.records import IFTExample, JudgeExample
from psr_lib.steps import body
from psr_lib.tables import escape

TITLES = {"segment": "Figure 3. Cutting a solution into steps",
          "solve": "Figure 4. Solving step by step",
          "judge": "Figure 5. Judging two next steps"}  # fmt: skip
REAL = "paper"  # the family for real models
WIDTH = 96  # letters that a notebook shows in a line


@dataclass(frozen=True)
class Sheet:
    """One prompt as a model reads it: which figure of the paper, which family, the text."""

    figure: str
    family: str
    prompt: str


def sheets(name: str, ift: IFTExample, eft: JudgeExample) -> list[Sheet]:
    """The three prompts in the run's family, and in that for real models, with these examples."""
    families = [prompts.load(one) for one in dict.fromkeys((name, REAL))]
    return [Sheet(TITLES[role], family.name, text)
            for role in TITLES for family in families
            if (text := _rendered(family, role, ift, eft))]  # fmt: skip


def _rendered(family: Family, role: str, ift: IFTExample, eft: JudgeExample) -> str:
    if role == "solve":
        return family.solve(ift.question).user
    if role == "judge":
        return family.judge(eft.question, eft.prefix, eft.step_a, eft.step_b).user
    solution = " ".join(body(step) for step in ift.steps)
    return fill(family.templates[role], question=ift.question, solution=solution)


def markdown(found: list[Sheet]) -> str:
    """The prompts as Markdown, long lines broken between words."""
    parts = [f"**{one.figure}** (family `{one.family}`)\n\n```text\n{_broken(one.prompt)}\n```\n"
             for one in found]  # fmt: skip
    return "\n".join(parts)


def _broken(prompt: str) -> str:
    return "\n".join(fill_words(line, WIDTH, break_long_words=False) for line in
                     prompt.rstrip().split("\n"))  # fmt: skip


def latex(found: list[Sheet]) -> str:
    """The prompts as LaTeX floats; lines are broken where they end."""
    return "\n".join(_float(one) for one in found)


def _float(one: Sheet) -> str:
    lines = "\\\\\n".join(escape(line) or "~" for line in one.prompt.rstrip().split("\n"))
    return (
        "\\begin{figure}\n\\fbox{\\parbox{0.96\\linewidth}{\\footnotesize\\ttfamily\\raggedright\n"
        f"{lines}}}}}\n\\caption{{{escape(one.figure)} (family {escape(one.family)})}}\n"
        "\\end{figure}\n"
    )
