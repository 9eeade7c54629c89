"""All data of a run (notebook 01): IFT, EFT, held-out EFT, and the questions of each round.

Every pool is drawn with one set of taken questions that begins with the benchmarks', so no two
pools share a question and none holds a test problem.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psr_lib import benchmarks, figures, problems, source_pools, teachers
from psr_lib.engines import opening
from psr_lib.evaluation import read_csv
from psr_lib.presets import PROCEDURAL
from psr_lib.records import IFTExample, JudgeExample, Problem, Question, StepPair, write_jsonl

TINY = "data/tiny"
PROBLEMS = source_pools.PROBLEMS


def make_pools(stage: Any) -> dict[str, int]:
    """Write every pool of the preset's source; returns rows a file.

    Questions of rounds 2, 3, ... hold no answer. `ift_more_<n>` feeds the control of that name.
    Raises PSRError where a source cannot be read or is too small.
    """
    settings = stage.preset.data
    if settings.eft_from == "chain":
        opening.check_installed(stage.preset.engine)
    if settings.source != PROCEDURAL:
        return source_pools.make_pools(stage)
    taken = set().union(*(benchmarks.questions_of(stage.source(f"{TINY}/{split}"))
                          for split in benchmarks.SPLITS))  # fmt: skip
    seed = stage.seed
    pools: dict[str, Any] = {}
    pools["ift"] = teachers.ift_rows(settings.ift, seed, taken, settings.ift_shares)
    pools |= EFT[settings.eft_from](stage, pools["ift"], taken)
    sizes = settings.questions[: stage.preset.rounds - 1]
    for n, pool in enumerate(teachers.question_pools(sizes, seed, taken), start=2):
        pools[f"questions_{n}"] = pool
        if settings.ift_more:
            name = f"ift_more_{n}"
            pools[name] = teachers.ift_rows(
                settings.ift_more, seed, taken, settings.ift_shares, name
            )
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}


def direct_eft(stage: Any, ift: list[IFTExample], taken: set[str]) -> dict[str, list[JudgeExample]]:
    """Pairs that the oracle builds: the right step beside a wrong one."""
    settings, seed = stage.preset.data, stage.seed
    train = teachers.eft_rows(settings.eft, seed, taken, settings.eft_shares)
    heldout = teachers.eft_rows(settings.eft_heldout, seed, taken, name="eft_heldout")
    return {"eft": train, "eft_heldout": heldout}


def no_eft(stage: Any, ift: list[IFTExample], taken: set[str]) -> dict[str, list[JudgeExample]]:
    """None at all, for those who want IFT and questions alone."""
    return {}


def chain_eft(stage: Any, ift: list[IFTExample], taken: set[str]) -> dict[str, list]:
    """Pairs as the paper makes them; the oracle labels the PRM's steps and reports on the rest.

    `eft_problems` are what was searched, with answers: for the teacher of the baseline's EFT alone.
    """
    from psr_lib import chain

    labelled = chain.labels_of(stage, taken)
    shares, size = stage.preset.data.eft_shares, stage.preset.tree.questions
    asked = teachers.fresh_puzzles("tree", size, stage.seed, taken, shares)
    questions = [Question(id=f"tree/{level}/{i}", text=puzzle.text())
                 for i, (level, puzzle) in enumerate(asked)]  # fmt: skip
    known = [Problem(id=row.id, source="tree", question=row.text, answer=_answer(row.text),
                     meta={"level": row.id.split("/")[1]}) for row in questions]  # fmt: skip
    return {PROBLEMS: known, **chain.make_eft(stage, ift, questions, labelled, confirmed)}


def _answer(question: str) -> str:
    return str(problems.parse(question).answer())


def confirmed(pair: StepPair) -> bool:
    """Whether the oracle says that the chosen step is right and the rejected one is not."""
    verdict = problems.oracle_verdict(pair.question, pair.prefix, pair.chosen, pair.rejected)
    return verdict == "A"


EFT = {"direct": direct_eft, "chain": chain_eft, "none": no_eft}


def eft_table(stage: Any, eft: Sequence[JudgeExample]) -> list[dict[str, Any]]:
    """What EFT came from: how often each flaw was built in, or what each filter left over."""
    if stage.preset.data.eft_from == "chain":
        return read_csv(stage.folder / "funnel.csv")
    flaws = Counter(row.meta["flaw"] for row in eft)
    return [{"flaw": name, "rows": count} for name, count in flaws.most_common()]


def save_figures(stage: Any, table: Sequence[dict[str, Any]]) -> list[Path]:
    """The figures of `eft_table`; where there is a PRM, its calibration beside it."""
    source, folder = figures.source_of(stage), stage.output("figures")
    if not table:
        return []
    if stage.preset.data.eft_from == "direct":
        title = f"The wrong step of a pair is wrong in {len(table)} ways"
        chart = figures.bars(table, "flaw", "rows", title, "EFT rows")
        return [figures.save_fig(chart, folder, "eft_flaws", table, source)]
    first, last = int(table[0]["pairs"]), int(table[-1]["pairs"])
    title = f"The filters keep {last:,} of {first:,} sibling pairs"
    chart = figures.funnel(table, "filter", "pairs", title, "pairs of sibling steps")
    curve = read_csv(stage.folder / "prm_calibration.csv")
    auc, error = stage.counts["prm_auc"], stage.counts["prm_calibration_error"]
    named = f"The PRM has AUC {auc:.2f} on held-out problems, calibration error {error:.3f}"
    beside = figures.calibration_curve(curve, named)
    return [figures.save_fig(chart, folder, "eft_funnel", table, source),
            figures.save_fig(beside, folder, "prm_calibration", curve, source)]  # fmt: skip
