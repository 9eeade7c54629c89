"""What models behind an API are likely to be asked and paid, before any row exists.

The price table, the rule of thumb and the answers paid for so far are those of the dry run
(`asking.announce`), which knows the rows themselves; here their number and length are expected.
"""

from collections.abc import Iterable

from psr_lib import asking, prices, prompts, workload
from psr_lib.methods import EVALUATE, REFERENCE
from psr_lib.paid import Paid
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import stage_preset
from psr_lib.work import Case, Work


def bills(case: Case, run: RunDir, works: Iterable[Work]) -> list[str]:
    """A line for each use of an API in these works; none where nobody is paid."""
    keys = {work.key for work in works}
    counted = {"segment": _segmented, "judge": _judged, "score": _scored}
    found = [_line(case, run, use, *counted[use](case)) for use in asking.uses(case.preset, keys)]
    return found + ([_reference(case)] if Key(EVALUATE, REFERENCE) in keys else [])


def _segmented(case: Case) -> tuple[float, float]:
    """Solutions that are cut into steps, and letters of each request: problem and solution."""
    data = case.preset.data
    count = data.ift + data.ift_more * (case.preset.rounds - 1)
    tokens = case.rows.question.value + case.model(1).answer_tokens
    return count, _template(case, "segment") + tokens * prices.LETTERS


def _judged(case: Case) -> tuple[float, float]:
    """Requests to judge a pair, in both orders, and letters of each.

    At most: of the sibling pairs of the trees the best share goes on, if no gap is too small.
    """
    tree, model = case.preset.tree, case.model(1)
    pairs = tree.questions * tree.iterations * model.siblings.value
    pairs *= case.preset.annotate.best_share
    shown = model.answer_tokens / 2 + 2 * model.step_tokens.value
    tokens = case.rows.question.value + shown
    return 2 * pairs, _template(case, "judge") + tokens * prices.LETTERS


def _scored(case: Case) -> tuple[float, float]:
    """Whole solutions to score, a right and a wrong one of each problem at most, and letters."""
    tokens = case.rows.question.value + case.model(1).answer_tokens
    return 2 * case.preset.tree.questions, _template(case, "score") + tokens * prices.LETTERS


def _reference(case: Case) -> str:
    """The API model that is measured: its answers to the problems, and a verdict a held-out pair.

    Sets that are small are answered `eval.samples` times more.
    """
    key = Key(EVALUATE, REFERENCE)
    data, reference = case.preset.data, case.preset.reference
    calls = sum(workload.answers(stage_preset(case.preset, key), key.n).values())
    calls += data.eft_heldout if data.eft_from != "none" else 0
    letters = (case.rows.judge + case.rows.question.value) * prices.LETTERS
    written = round(case.model(1).answer_tokens)
    texts = ["x" * round(letters)] * calls
    return f"reference: {prices.estimate(reference.model, texts, [], written)}"


def _template(case: Case, role: str) -> int:
    return len(prompts.load(case.preset.teacher.prompts).templates[role])


def _line(case: Case, run: RunDir, use: str, calls: float, letters: float) -> str:
    teacher, most = case.preset.teacher, "at most, " if use in ("judge", "score") else ""
    paid = Paid(asking.kept_answers(run, teacher.model, use))
    left = max(0, round(calls) - len(paid))
    texts = ["x" * round(letters)] * left
    found = prices.estimate(teacher.model, texts, paid.values(), teacher.answer_tokens)
    return f"{use}: {most}{found}"
