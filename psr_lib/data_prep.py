"""All data of a run (notebook 01): IFT, EFT, held-out EFT, and the questions of each round.

Every pool is drawn with one set of taken questions that begins with the benchmarks', so no two
pools share a question and none holds a test problem.
"""

from typing import Any

from psr_lib import benchmarks, problems, teachers
from psr_lib.records import IFTExample, JudgeExample, PSRError, Question, StepPair, write_jsonl

TINY = "data/tiny"


def make_pools(stage: Any) -> dict[str, int]:
    """Write every pool of the procedural source; returns rows a file.

    Questions of rounds 2, 3, ... hold no answer. `ift_more_<n>` feeds the control of that name.
    Raises PSRError for another source.
    """
    settings = stage.preset.data
    if settings.source != "procedural":
        raise PSRError(f"data.source {settings.source!r} is unknown; choose 'procedural'")
    taken = set().union(*(benchmarks.questions_of(stage.source(f"{TINY}/{split}"))
                          for split in benchmarks.SPLITS))  # fmt: skip
    seed, pools = stage.seed, {}
    pools["ift"] = teachers.ift_rows(settings.ift, seed, taken, settings.ift_shares)
    pools |= EFT[settings.eft_from](stage, pools["ift"], taken)
    sizes = settings.questions[: stage.preset.rounds - 1]
    for n, pool in enumerate(teachers.question_pools(sizes, seed, taken), start=2):
        pools[f"questions_{n}"] = pool
        name = f"ift_more_{n}"
        pools[name] = teachers.ift_rows(settings.ift, seed, taken, settings.ift_shares, name)
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}


def direct_eft(stage: Any, ift: list[IFTExample], taken: set[str]) -> dict[str, list[JudgeExample]]:
    """Pairs that the oracle builds: the right step beside a wrong one."""
    settings, seed = stage.preset.data, stage.seed
    train = teachers.eft_rows(settings.eft, seed, taken, settings.eft_shares)
    heldout = teachers.eft_rows(settings.eft_heldout, seed, taken, name="eft_heldout")
    return {"eft": train, "eft_heldout": heldout}


def chain_eft(stage: Any, ift: list[IFTExample], taken: set[str]) -> dict[str, list[JudgeExample]]:
    """Pairs as the paper makes them; the oracle labels the PRM's steps and reports on the rest."""
    from psr_lib import chain

    labelled = chain.labels_of(stage, taken)
    shares, size = stage.preset.data.eft_shares, stage.preset.tree.questions
    asked = teachers.fresh_puzzles("tree", size, stage.seed, taken, shares)
    questions = [Question(id=f"tree/{level}/{i}", text=puzzle.text())
                 for i, (level, puzzle) in enumerate(asked)]  # fmt: skip
    return chain.make_eft(stage, ift, questions, labelled, confirmed)


def confirmed(pair: StepPair) -> bool:
    """Whether the oracle says that the chosen step is right and the rejected one is not."""
    verdict = problems.oracle_verdict(pair.question, pair.prefix, pair.chosen, pair.rejected)
    return verdict == "A"


EFT = {"direct": direct_eft, "chain": chain_eft}
