"""What notebooks 03 and 05 read only to look at it: the judge's report, the pairs it judged."""

from collections.abc import Mapping
from typing import Any

from psr_lib import rounds, srlm_rounds
from psr_lib.methods import SRLM
from psr_lib.records import JudgeExample, Rows, read_jsonl

SHOWN = ("pairs", "expansions", "distinct", "duplicate_rate", "tie_rate", "rollback_rate",
         "judge_first_position", "judge_unreadable", "judge_consistency")  # fmt: skip


def heldout(stage: Any) -> list[JudgeExample]:
    """The held-out pairs that M[n] was asked about; none for models that score solutions."""
    if stage.method == SRLM and stage.iteration:
        return []
    return read_jsonl(stage.input("data/eft_heldout.jsonl"), JudgeExample)


def numbers(found: Mapping[str, Any]) -> dict[str, str]:
    """Counts and shares for the eye: counts whole, shares with three digits, `-` for none."""
    return {name: "-" if n is None else f"{n:,}" if isinstance(n, int) else f"{n:.3f}"
            for name, n in found.items()}  # fmt: skip


def judge_report(stage: Any, traces: Rows) -> dict[str, Any]:
    """What to look at after a search: its counts, and the judge's accuracy by the oracle.

    The oracle's part is counted for the manifest.
    """
    ours = stage.method == SRLM
    report = (srlm_rounds if ours else rounds).oracle_report(traces)
    stage.count(**report)
    names = srlm_rounds.SHOWN if ours else SHOWN
    return {name: stage.counts[name] for name in (*names, *report)}
