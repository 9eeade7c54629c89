"""What notebook 03 shows of a search, of steps or (under `srlm`) of whole solutions."""

from collections.abc import Iterable
from typing import Any

from psr_lib import rounds, srlm_rounds
from psr_lib.records import Rows
from psr_lib.solution_traces import SolutionTrace, SolutionTraceFile
from psr_lib.traces import SearchTrace

SHOWN = ("pairs", "expansions", "distinct", "duplicate_rate", "tie_rate", "rollback_rate",
         "judge_first_position", "judge_unreadable", "judge_consistency")  # fmt: skip


def story(trace: SearchTrace | SolutionTrace) -> list[str]:
    """What became of a question, in lines: candidates, their scores and their fate."""
    if isinstance(trace, SolutionTrace):
        return srlm_rounds.story(trace)
    lines = [trace.question.text]
    for expansion in trace.expansions[:6]:
        lines.append(f"\nstep {expansion.depth}, attempt {expansion.attempt}: {expansion.outcome}")
        lines += map("{copies} x, {wins} wins  {fate:<5}  {step}".format_map,
                     rounds.candidate_rows(expansion))  # fmt: skip
    return lines


def explanations(traces: Iterable[SearchTrace] | Iterable[SolutionTrace]) -> list[str]:
    """Two of the judge's explanations in full."""
    if isinstance(traces, SolutionTraceFile):
        return srlm_rounds.explanations(traces)
    expansion = next((e for t in traces for e in t.expansions if e.robin.verdicts), None)
    found = list(expansion.robin.verdicts.items())[:2] if expansion else []
    return [f"A = candidate {a}, B = candidate {b}: {v.explanation}" for (a, b), v in found]


def judge_report(stage: Any, traces: Rows) -> dict[str, Any]:
    """What to look at after a search: its counts, and the judge's accuracy by the oracle.

    The oracle's part is counted for the manifest.
    """
    ours = stage.method == "srlm"
    report = (srlm_rounds if ours else rounds).oracle_report(traces)
    stage.count(**report)
    names = srlm_rounds.SHOWN if ours else SHOWN
    return {name: stage.counts[name] for name in (*names, *report)}
