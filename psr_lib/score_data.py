"""Data of the baseline `srlm` (notebook 01 with method=srlm): its scoring EFT, and how 01 shows it.

Everything else (IFT, questions, test sets) is what all methods share. Where the step judge's EFT is
from the chain, the scored solutions are of the same policy on the problems that were searched there
(`score_chain`), at most as many rows; where it is built directly, they are built on its problems.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psr_lib import contests, data_prep, figures, score_teachers
from psr_lib.contests import Contest
from psr_lib.presets import Srlm
from psr_lib.progress import track
from psr_lib.records import (
    JudgeExample,
    PSRError,
    ScoreExample,
    read_jsonl,
    seed_of,
    write_jsonl,
)
from psr_lib.score_filters import judged, thinned
from psr_lib.score_teachers import OracleScorer, Scorer

Pairs = list[list[ScoreExample]]  # a right solution and a wrong one of a problem
TRAIN, HELDOUT = "eft_scores", "eft_scores_heldout"


def make_data(stage: Any) -> dict[str, int]:
    """The pools that all methods share, or the scoring EFT under `srlm`; returns rows a file."""
    return make_scores(stage) if stage.method == "srlm" else data_prep.make_pools(stage)


def make_scores(stage: Any) -> dict[str, int]:
    """Write `eft_scores` and `eft_scores_heldout`; what the filters left out is counted.

    Held-out rows come in pairs, a right solution and then a wrong one. Raises PSRError where the
    preset makes no EFT, no pair is left, or the teacher's server fails for good.
    """
    if stage.preset.data.eft_from == "none":
        raise PSRError("srlm: data.eft_from=none makes no EFT; take chain, or direct")
    settings: Srlm = stage.preset.srlm
    train, heldout = (_chain if stage.preset.data.eft_from == "chain" else _direct)(stage)
    rng = random.Random(seed_of(TRAIN, stage.seed))
    rows = thinned([row for pair in train for row in pair], settings.top_share, rng)
    size = stage.preset.data.eft_heldout // 2
    pools = {TRAIN: rows[: stage.preset.data.eft],
             HELDOUT: [row for pair in heldout[:size] for row in pair]}  # fmt: skip
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}


def _direct(stage: Any) -> tuple[Pairs, Pairs]:
    """Scored pairs of the problems of EFT, and of its held-out ones; the oracle scores them."""
    return _of_examples(stage, "eft", TRAIN), _of_examples(stage, "eft_heldout", HELDOUT)


def _of_examples(stage: Any, source: str, name: str) -> Pairs:
    examples = read_jsonl(stage.input(f"data/{source}.jsonl"), JudgeExample)
    return _scored(stage, contests.built(examples, stage.seed), OracleScorer(), name)


def _chain(stage: Any) -> tuple[Pairs, Pairs]:
    """Scored pairs of the policy's solutions, divided as the rows that the preset asks for."""
    from psr_lib import score_chain  # an engine takes seconds to load

    found, worked = score_chain.contests(stage)
    with score_teachers.opened(stage, found, worked) as teacher:
        pairs = _scored(stage, found, teacher, TRAIN)
    data = stage.preset.data
    apart = round(len(pairs) * data.eft_heldout / (data.eft + data.eft_heldout))
    if not 0 < apart < len(pairs):
        raise PSRError(f"srlm: {len(pairs)} scored pairs are left of {len(found)}; raise "
                       "tree.questions or srlm.eft_solutions")  # fmt: skip
    random.Random(seed_of(HELDOUT, stage.seed)).shuffle(pairs)
    return pairs[apart:], pairs[:apart]


def _scored(stage: Any, found: Sequence[Contest], teacher: Scorer, name: str) -> Pairs:
    with track(2 * len(found), "scores") as progress:
        pairs, counts = judged(found, teacher, name, progress.update)
    stage.count(**{f"{name}_{what}": n for what, n in counts.items()})
    return pairs


def scored_rows(stage: Any, rows: dict[str, int]) -> list[ScoreExample]:
    """The scoring EFT that the stage made; empty under any other method."""
    return read_jsonl(stage.folder / f"{TRAIN}.jsonl", ScoreExample) if TRAIN in rows else []


def eft_table(stage: Any, eft: Sequence[JudgeExample | ScoreExample]) -> list[dict[str, Any]]:
    """What EFT came from, as in `data_prep`, or under `srlm` how often each score."""
    if stage.method != "srlm":
        return data_prep.eft_table(stage, [row for row in eft if isinstance(row, JudgeExample)])
    points = Counter(row.points for row in eft if isinstance(row, ScoreExample))
    return [{"score": str(k), "rows": points[k]} for k in sorted(points)]


def save_figures(stage: Any, table: Sequence[dict[str, Any]]) -> list[Path]:
    """The figures of `eft_table`."""
    if stage.method != "srlm":
        return data_prep.save_figures(stage, table)
    full = int(table[-1]["rows"]) / sum(row["rows"] for row in table)
    title = f"{100 * full:.0f} % of the scored solutions get full points"
    chart = figures.bars(table, "score", "rows", title, "EFT rows")
    folder, source = stage.output("figures"), figures.source_of(stage)
    return [figures.save_fig(chart, folder, "eft_scores", table, source)]
