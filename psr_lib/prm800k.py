"""PRM800K's files (Lightman et al. 2023, arXiv 2305.20050) as labelled solutions.

One JSON object a line: `question.problem`, and for each step under `label.steps` the `completions`
with a `rating` of 1, 0 or -1, the `chosen_completion`, or a `human_completion` in its place. A
solution of chosen steps becomes one row; every other rated completion becomes a row of its own, the
chosen steps before it without labels, so that each rating counts once.

Two things are changed, so that the PRM reads steps as the solver writes them: a step gets its
`Step k:` mark, and a closing `# Answer` line becomes a boxed answer.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from psr_lib.records import PSRError, StepLabels, hash_text
from psr_lib.steps import number

ANSWER = re.compile(r"\s*# Answer\s+(?P<answer>\S.*?)\s*$", re.DOTALL)
NEUTRAL = {"good": "+", "bad": "-", "skip": ""}
FINISHES = ("solution", "found_error", "give_up", "bad_problem")
# Rows that are the same for every labeller, and problems that the labeller called broken.
SKIPPED = ("is_quality_control_question", "is_initial_screening_question")


def read_prm800k(
    lines: Iterable[Any], source: str, neutral: str = "good"
) -> tuple[list[StepLabels], Counter]:
    """The labelled solutions in the rows of a file, and counts of what was read and left out.

    `neutral` says what a rating of 0 is: `good`, `bad`, or `skip` (no label). Flagged completions
    and ratings of null have no label; a step that a labeller wrote is `+`, as it was asked to be.
    Raises PSRError naming `source`, line and field where a row has another form.
    """
    counts: Counter = Counter()
    rows: list[StepLabels] = []
    for line, row in enumerate(lines, start=1):
        counts["lines"] += 1
        reader = _Line(f"{source}:{line}", row, NEUTRAL[neutral], counts)
        if reader.skipped():
            counts["skipped"] += 1
            continue
        rows += reader.rows(f"prm800k/{line}")
    counts["rows"] = len(rows)
    return rows, counts


class _Line:
    """One line of the file."""

    def __init__(self, where: str, row: Any, neutral: str, counts: Counter):
        self.where, self.row, self.counts = where, row, counts
        self.label_of = {1: "+", 0: neutral, -1: "-", None: ""}

    def get(self, holder: Any, name: str, kind: Any, field: str) -> Any:
        """`holder[name]`; raises PSRError naming the field unless it is there and of its type."""
        if not isinstance(holder, dict) or name not in holder:
            raise PSRError(f"{self.where}: field {field!r} is missing; PRM800K rows have it")
        if not isinstance(holder[name], kind) or isinstance(holder[name], bool):
            found = type(holder[name]).__name__
            raise PSRError(f"{self.where}: field {field!r} should be {_names(kind)}, found {found}")
        return holder[name]

    def skipped(self) -> bool:
        """Whether the line is for quality control, for screening, or about a broken problem."""
        label = self.get(self.row, "label", dict, "label")
        finish = self.get(label, "finish_reason", str, "label.finish_reason")
        if finish not in FINISHES:
            known = ", ".join(FINISHES)
            raise PSRError(f"{self.where}: field 'label.finish_reason' is {finish!r}, not {known}")
        return finish == "bad_problem" or any(self.row.get(name) is True for name in SKIPPED)

    def rows(self, name: str) -> Iterator[StepLabels]:
        """The chosen steps as one row, and a row for every rated completion beside them."""
        question = self.get(self.row, "question", dict, "question")
        problem = self.get(question, "problem", str, "question.problem")
        made = [(steps, labels) for steps, labels in self._solutions() if any(labels)]
        for k, (steps, labels) in enumerate(made):
            yield StepLabels(
                id=f"{name}/{k}", problem_id=f"prm800k/{hash_text(problem)[:16]}",
                question=problem, steps=steps, labels=labels,
            )  # fmt: skip

    def _solutions(self) -> Iterator[tuple[list[str], list[str]]]:
        path: list[str] = []
        labels: list[str] = []
        others: list[tuple[list[str], list[str]]] = []
        for chosen, beside in self._steps():
            goes_on = chosen is not None
            if not goes_on and beside:  # the first of those that nobody chose ends the row
                chosen, *beside = beside
            others += [([*path, text], [""] * len(path) + [label]) for text, label in beside]
            if chosen:
                path.append(chosen[0])
                labels.append(chosen[1])
            if not goes_on:
                break
        yield path, labels
        yield from others

    def _steps(self) -> Iterator[tuple[tuple[str, str] | None, list[tuple[str, str]]]]:
        """(chosen text and label or None, the labelled completions beside it) of every step."""
        steps = self.get(self.row["label"], "steps", list, "label.steps")
        for k, step in enumerate(steps):
            field = f"label.steps[{k}]"
            completions = self._completions(step, k, field)
            chosen = self.get(step, "chosen_completion", int | None, f"{field}.chosen_completion")
            human = step.get("human_completion")
            if chosen is not None and not 0 <= chosen < len(completions):
                raise PSRError(
                    f"{self.where}: field '{field}.chosen_completion' is {chosen}, but there are "
                    f"{len(completions)} completions"
                )
            beside = [c for i, c in enumerate(completions) if i != chosen and c[1]]
            if chosen is not None:
                yield completions[chosen], beside
            elif human:
                text = self.get(human, "text", str, f"{field}.human_completion.text")
                yield (as_step(text, k + 1), "+"), beside
            else:
                yield None, beside

    def _completions(self, step: Any, k: int, field: str) -> list[tuple[str, str]]:
        """Text and label of every completion of step k."""
        found = []
        given = self.get(step, "completions", list | None, f"{field}.completions") or []
        for i, completion in enumerate(given):
            where = f"{field}.completions[{i}]"
            text = self.get(completion, "text", str, f"{where}.text")
            rating = self.get(completion, "rating", int | None, f"{where}.rating")
            if rating not in self.label_of:
                raise PSRError(
                    f"{self.where}: field '{where}.rating' is {rating}; known are 1, 0, -1, null"
                )
            label = "" if completion.get("flagged") else self.label_of[rating]
            self.counts[f"rating {rating}" if not completion.get("flagged") else "flagged"] += 1
            found.append((as_step(text, k + 1), label))
        return found


def as_step(text: str, k: int) -> str:
    r"""A step's text as the solver writes it.

    >>> as_step("So it is 29 cents.\n\n# Answer\n\n29", 6)
    'Step 6: So it is 29 cents. The answer is \\boxed{29}.'
    """
    text = ANSWER.sub(r" The answer is \\boxed{\g<answer>}.", text).strip()
    return text if number(text) == k else f"Step {k}: {text}"


def _names(kind: Any) -> str:
    return str(kind) if not isinstance(kind, type) else kind.__name__
