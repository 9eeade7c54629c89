"""The tokens of searches: M[n]'s step search, the baseline's solutions, the chain's tree search.

A step search makes

    problems x expansions x w candidates,  problems x expansions x ordered pairs x asked verdicts

with expansions = steps of a solution x visits, at most `search.max_iterations`. Half of a solution
stands before a step, on average.
"""

from dataclasses import replace

from psr_lib.methods import MAIN, SEARCH, SRLM
from psr_lib.robins import FREE_JUDGES, ordered_pairs
from psr_lib.run_dirs import Key
from psr_lib.stages import stage_preset
from psr_lib.work import Case, Work


def of_round(case: Case, key: Key) -> Work:
    """The search that makes the pairs of round n; the baseline's is another one."""
    problems = case.preset.data.questions[key.n - 2]
    if key.method == SRLM:
        return _solutions(case, key, problems)
    count = problems * expansions(case, key.n - 1)
    return judged(case, key, f"search, {problems:,} questions", count, key.n - 1)


def expansions(case: Case, n: int) -> float:
    """Expansions that M[n] makes for one question."""
    search, model = case.preset.search, case.model(n)
    visits = model.steps.value * model.visits.value
    return float(search.max_iterations if search.kind == "mcts"
                 else min(visits, search.max_iterations))  # fmt: skip


def pairs(case: Case, n: int) -> float:
    """Preference pairs of round n."""
    each = expansions(case, n - 1) * case.model(n - 1).pairs.value
    return case.preset.data.questions[n - 2] * each


def judged(case: Case, key: Key, what: str, count: float, n: int) -> Work:
    """The candidates of so many expansions by M[n], and the verdicts on them."""
    search, judge, model, rows = case.preset.search, case.preset.judge, case.model(n), case.rows
    before, step = model.answer_tokens / 2, model.step_tokens.value
    most = count * len(ordered_pairs(search.width, search.scoring)) * judge.votes
    most *= judge.kind not in FREE_JUDGES
    calls = most * (1.0 if judge.temperature > 0 else model.asked.value)
    each = 0.0 if judge.verdict == "direct" else model.verdict_tokens.value
    read = count * rows.asked(before) + calls * rows.shown(before, step)
    return Work(key, what, "search", generated=count * search.width * step, judged=calls * each,
                most=most * each, read=read)  # fmt: skip


def _solutions(case: Case, key: Key, problems: int) -> Work:
    """The baseline's whole solutions and scores: as many tokens as psrlm's search, or N of each."""
    srlm, model, rows = case.preset.srlm, case.model(key.n - 1), case.rows
    what, answer = f"solutions and scores, {problems:,} questions", model.answer_tokens
    if srlm.budget == "psrlm":
        twin = Key(SEARCH, MAIN, key.n)
        work = of_round(replace(case, preset=stage_preset(case.preset, twin)), twin)
        return replace(work, key=key, what=f"{what} (psrlm's tokens)", generated=work.written,
                       judged=0.0, most=0.0)  # fmt: skip
    each = problems * srlm.solutions
    read = problems * rows.asked() + each * srlm.scores * rows.shown(answer, 0.0)
    return Work(key, what, "search", generated=each * answer, read=read,
                judged=each * srlm.scores * model.verdict_tokens.value)  # fmt: skip


def of_trees(case: Case, key: Key) -> list[Work]:
    """An iteration may sample `width` siblings and roll out `simulation_depth` steps; those that
    end in a finished solution sample none. The step PRM reads each step."""
    tree, model = case.preset.tree, case.model(1)
    asked, step = case.rows.asked(model.answer_tokens / 2), model.step_tokens.value
    visits = tree.questions * tree.iterations * model.sampled.value
    each, what = tree.width + tree.simulation_depth, f"tree search, {tree.questions:,} questions"
    return [
        Work(key, what, "search", generated=visits * each * step,
             read=visits * (1 + tree.simulation_depth) * asked),
        Work(key, "step PRM on its steps", "read", read=visits * each * (asked + step),
             base=case.preset.prm.model or case.preset.prm.base),
    ]  # fmt: skip
