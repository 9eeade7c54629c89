r"""IFT from worked solutions: cut into steps by a teacher, and checked (paper section 3.2, Fig. 3).

The paper asks its teacher to change nothing and to keep the boxed answer; here both are checked on
every solution, and no formula may be cut. What fails is asked for again, then counted and left out.

>>> row = by_rule(Problem(id="a/0", source="a", question="2 + 2 + 1?", answer="5",
...                       solution="2 + 2 = 4. So 4 + 1 = \\boxed{5}."))
>>> row.steps, row.fault
(['Step 1: 2 + 2 = 4.', 'Step 2: So 4 + 1 = \\boxed{5}.'], '')
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from psr_lib.engines.chat import Chat, Messages
from psr_lib.engines.threads import each
from psr_lib.formulas import latex_dollars
from psr_lib.progress import track
from psr_lib.prompts import Family, fill
from psr_lib.prompts.slots import plain
from psr_lib.records import IFTExample, Problem, PSRError
from psr_lib.segment import answer_last, cut, sentences
from psr_lib.steps import MARK, body, boxed, is_final, join_steps, number, split_steps
from psr_lib.tallies import Share

AROUND = 24  # characters shown on either side of a change
PAIRS = (("\\begin{", "\\end{"), ("\\[", "\\]"), ("\\(", "\\)"), ("{", "}"))
INNER_STEP = re.compile(r"\n(?=Step\b)")  # would end the step while it is generated


@dataclass(frozen=True)
class Segmented:
    """A solution in steps; `fault` says why it cannot be used, '' if it can; it took `tries`."""

    problem: Problem
    steps: list[str]
    fault: str
    tries: int = 1


Teacher = Callable[[Problem], Segmented]


def marked(bodies: Iterable[str]) -> list[str]:
    """Steps with their marks; inside a step no line begins with the word that ends a step."""
    return [f"Step {k}: {INNER_STEP.sub(' ', text)}" for k, text in enumerate(bodies, start=1)]


def by_rule(problem: Problem) -> Segmented:
    """The offline teacher: it cuts as `segment.cut` does, or keeps marks that are there already."""
    source = problem.solution
    steps = split_steps(source) if MARK.search(source) else marked(cut(source))
    return Segmented(problem, steps, fault(source, steps))


def fault(source: str, steps: Sequence[str]) -> str:
    """Why these steps are no segmentation of a solution; '' if they are one.

    The text is compared whitespace aside, marks of the source's own aside too.
    """
    if not boxed(source):
        return "the solution has no boxed answer"
    if [number(step) for step in steps] != list(range(1, len(steps) + 1)) or not steps:
        return "the steps are not marked Step 1:, Step 2:, ... in order"
    bodies = [body(step) for step in steps]
    if altered := difference(MARK.sub("", source), "".join(bodies)):
        return f"the text is altered: {altered}"
    if boxed(join_steps(steps)) != boxed(source) or [k for k in bodies[:-1] if is_final(k)]:
        return "the boxed answer is not in the last step alone"
    if broken := [k for k, text in enumerate(bodies, start=1) if cuts_formula(source, text)]:
        return f"a formula is cut: step {broken[0]}"
    if len(steps) == 1 and len(sentences(source)) > 1:
        return "several sentences are one step"
    return ""


def difference(source: str, found: str) -> str:
    """Where two texts first differ, whitespace aside, as `'old' became 'new'`; '' if nowhere."""
    one, two = ("".join(text.split()) for text in (source, found))
    if one == two:
        return ""
    at = next((k for k, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]),
              min(len(one), len(two)))  # fmt: skip
    near = slice(max(0, at - AROUND), at + AROUND)
    return f"{one[near]!r} became {two[near]!r}"


def cuts_formula(source: str, step: str) -> bool:
    """Whether a step opens or closes what another one does, where the source pairs its signs."""
    for opened, closed in PAIRS:
        paired = _count(source, opened) == _count(source, closed)
        if paired and _count(step, opened) != _count(step, closed):
            return True
    return latex_dollars(source) and _count(step, "$") % 2 == 1


def _count(text: str, sign: str) -> int:
    return len(re.findall(r"(?<!\\)" + re.escape(sign), text))


class ApiSegmenter:
    """A chat model that segments; a reply that fails a check is sent back with what is wrong."""

    def __init__(self, chat: Chat, family: Family, attempts: int):
        """`attempts`: replies asked for, at most, to one solution."""
        self.chat, self.template, self.attempts = chat, family.templates["segment"], attempts

    def first_turn(self, problem: Problem) -> Messages:
        """What is asked first (paper Fig. 3); special tokens of the texts are broken by a blank."""
        user = fill(self.template, question=problem.question, solution=problem.solution)
        return [{"role": "user", "content": plain(None, user)}]

    def __call__(self, problem: Problem) -> Segmented:
        """Raises EngineError where the server fails for good."""
        asked = messages = self.first_turn(problem)
        found = Segmented(problem, [], "no attempt was made", 0)
        for attempt in range(1, self.attempts + 1):
            reply = self.chat.ask(messages, attempt)
            if reply.fault:
                return Segmented(problem, [], f"the teacher gave no answer: {reply.fault}", attempt)
            steps = read_reply(reply.text)
            found = Segmented(problem, steps, fault(problem.solution, steps), attempt)
            if not found.fault:
                break
            again = f"This is wrong: {found.fault}. Reply with the whole segmented solution again."
            messages = [*asked, {"role": "assistant", "content": plain(None, reply.text)},
                        {"role": "user", "content": plain(None, again)}]  # fmt: skip
        return found


def read_reply(text: str) -> list[str]:
    """The steps in a reply, without what stands before the first mark; the answer's step last."""
    start = MARK.search(text)
    steps = split_steps(text[start.start() :]) if start else []
    if [number(step) for step in steps] != list(range(1, len(steps) + 1)):
        return steps
    return marked(answer_last([f"{body(step)}\n" for step in steps])) if steps else []


@dataclass
class Tally:
    """What came of the solutions that a teacher was given."""

    kept: int = 0
    retried: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: Segmented) -> None:
        """Count one."""
        self.kept += not found.fault
        self.retried += found.tries > 1
        if found.fault:
            kind, _, detail = found.fault.partition(": ")
            row = {"id": found.problem.id, "reason": f"segmentation: {kind}", "of": ""}
            self.failures.append(row | {"shared": detail, "question": found.problem.question})

    def counts(self) -> dict[str, int]:
        """Numbers for the manifest, the reasons of failures among them."""
        reasons = Counter(row["reason"].partition(": ")[2] for row in self.failures)
        named = {f"ift_failed: {reason}": n for reason, n in sorted(reasons.items())}
        return {"ift_kept": self.kept, "ift_retried": self.retried,
                "ift_failed": len(self.failures), **named}  # fmt: skip


def make_rows(
    problems: Iterator[Problem], size: int, teacher: Teacher, name: str, tally: Tally,
    threads: int = 1,
) -> list[IFTExample]:  # fmt: skip
    """`size` rows from as many problems as it takes; grows the tally by each.

    Raises PSRError where the problems run out, or a server fails for good.
    """
    rows: list[IFTExample] = []
    while len(rows) < size:
        wave = list(islice(problems, size - len(rows)))
        if not wave:
            raise PSRError(
                f"{name}: {len(rows)} of {size} solutions could be used, {len(tally.failures)} "
                "failed a check; lower data.ift or data.ift_more, or take a larger data.source"
            )
        for found in taught(wave, teacher, threads):
            tally.add(found)
            if not found.fault:
                rows.append(_row(found, f"{name}/{len(rows)}"))
    return rows


def taught(problems: Sequence[Problem], teacher: Teacher, threads: int) -> list[Segmented]:
    """The problems segmented, in order; several at once where a teacher waits for a server."""
    if threads == 1:
        return [teacher(problem) for problem in problems]
    found: dict[int, Segmented] = {}
    whole = Share()
    with track(len(problems), "segmentation") as progress:

        def keep(done: tuple[int, Segmented]) -> None:
            found[done[0]] = done[1]
            whole.add(not done[1].fault)
            progress.update(len(found), accepted=whole)

        def segment(job: tuple[int, Problem]) -> tuple[int, Segmented]:
            return job[0], teacher(job[1])

        each(enumerate(problems), segment, keep, threads)
    return [found[index] for index in range(len(problems))]


def _row(found: Segmented, name: str) -> IFTExample:
    problem = found.problem
    meta = {"tries": found.tries} | {k: v for k, v in problem.meta.items() if k == "changed"}
    return IFTExample(id=name, problem_id=problem.id, question=problem.question,
                      steps=found.steps, meta=meta)  # fmt: skip
