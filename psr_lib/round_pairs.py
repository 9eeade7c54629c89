"""A round's pairs as training takes them: filtered, with soft labels, with EFT beside them.

All of it is off unless the preset's `dpo` section asks for it: pairs then go on as they are.
"""

from collections.abc import Sequence
from typing import Any

from psr_lib import consistency, pair_filters
from psr_lib.records import PSRError, StepPair
from psr_lib.traces import TraceFile


def filtered(stage: Any, pairs: Sequence[StepPair]) -> list[StepPair]:
    """The pairs that `dpo.filters` keep; how many each left out is counted.

    Raises PSRError where nothing is left.
    """
    kept, lost = pair_filters.kept(pairs, stage.preset.dpo)
    stage.count(**{f"left out by {name}": count for name, count in lost.items()})
    return kept


def soft_labels(stage: Any, pairs: Sequence[StepPair]) -> dict[str, float] | None:
    """C of each pair, from the verdicts of its search; None where labels are hard.

    Raises PSRError where the search judged each pair in one order alone; `presets.check_method`
    refuses methods whose search judges no pairs.
    """
    kind = stage.preset.dpo.soft_labels
    if kind == "none":
        return None
    path = stage.pairs().with_name("traces.jsonl.gz")
    traces = TraceFile(stage.input(path.relative_to(stage.run.path).as_posix()))
    found = consistency.labels(kind, consistency.of_pairs(pairs, traces))
    stage.count(consistency=sum(found.values()) / len(found))
    return found


def replayed(stage: Any, eft: Sequence[Any]) -> Sequence[Any]:
    """The EFT to replay; raises PSRError where the preset asks for it and there is none."""
    if not eft:
        raise PSRError("dpo.replay: this run has no EFT; set dpo.replay=0, or data.eft_from")
    stage.count(replayed=len(eft))
    return eft
