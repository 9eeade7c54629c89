"""All data of a run (notebook 01): IFT, EFT, held-out EFT, and the questions of each round.

Every pool is drawn with one set of taken questions that begins with the benchmarks', so no two
pools share a question and none holds a test problem.
"""

from typing import Any

from psr_lib import benchmarks, source_pools, sources, teachers
from psr_lib.records import write_jsonl

TINY = "data/tiny"


def make_pools(stage: Any) -> dict[str, int]:
    """Write every pool of the preset's source; returns rows a file.

    Questions of rounds 2, 3, ... hold no answer. `ift_more_<n>` feeds the control of that name.
    Raises PSRError where a source cannot be read or is too small.
    """
    settings = stage.preset.data
    if settings.source != sources.PROCEDURAL:
        return source_pools.make_pools(stage)
    taken = set().union(*(benchmarks.questions_of(stage.source(f"{TINY}/{split}"))
                          for split in benchmarks.SPLITS))  # fmt: skip
    seed, pools = stage.seed, {}
    pools["ift"] = teachers.ift_rows(settings.ift, seed, taken, settings.ift_shares)
    pools["eft"] = teachers.eft_rows(settings.eft, seed, taken, settings.eft_shares)
    pools["eft_heldout"] = teachers.eft_rows(settings.eft_heldout, seed, taken, name="eft_heldout")
    sizes = settings.questions[: stage.preset.rounds - 1]
    for n, pool in enumerate(teachers.question_pools(sizes, seed, taken), start=2):
        pools[f"questions_{n}"] = pool
        if settings.ift_more:
            name = f"ift_more_{n}"
            pools[name] = teachers.ift_rows(
                settings.ift_more, seed, taken, settings.ift_shares, name
            )
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}
