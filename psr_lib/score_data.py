"""Data of the baseline `srlm` (notebook 01 with method=srlm): its scoring EFT, and how 01 shows it.

Everything else (IFT, questions, test sets) is what all methods share. The scored solutions are of
the same problems as the step judge's EFT, as many rows, held-out ones of its held-out problems.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psr_lib import data_prep, figures
from psr_lib.presets import Srlm
from psr_lib.records import (
    JudgeExample,
    PSRError,
    ScoreExample,
    read_jsonl,
    seed_of,
    write_jsonl,
)
from psr_lib.score_teachers import contests, judged, oracle, thinned

TRAIN, HELDOUT = "eft_scores", "eft_scores_heldout"


def make_data(stage: Any) -> dict[str, int]:
    """The pools that all methods share, or the scoring EFT under `srlm`; returns rows a file."""
    return make_scores(stage) if stage.method == "srlm" else data_prep.make_pools(stage)


def make_scores(stage: Any) -> dict[str, int]:
    """Write `eft_scores` and `eft_scores_heldout`; what the filters left out is counted.

    Held-out rows come in pairs, a right solution and then a wrong one. Raises PSRError where the
    problems are not the laboratory's own.
    """
    if stage.preset.data.source != "procedural":
        raise PSRError(
            f"srlm: its teacher, the oracle, knows nothing of {stage.preset.data.source!r}; take "
            "data.source=procedural"
        )
    settings: Srlm = stage.preset.srlm
    pairs = _pairs(stage, "eft", TRAIN)
    rng = random.Random(seed_of(TRAIN, stage.seed))
    rows = thinned([row for pair in pairs for row in pair], settings.top_share, rng)
    size = stage.preset.data.eft_heldout // 2
    heldout = [row for pair in _pairs(stage, "eft_heldout", HELDOUT)[:size] for row in pair]
    pools = {TRAIN: rows[: stage.preset.data.eft], HELDOUT: heldout}
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}


def _pairs(stage: Any, source: str, name: str) -> list[list[ScoreExample]]:
    examples = read_jsonl(stage.input(f"data/{source}.jsonl"), JudgeExample)
    pairs, counts = judged(contests(examples, stage.seed), oracle, name)
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
