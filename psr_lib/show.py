"""Looking inside, in a notebook: searches, verdicts, solutions, pairs and tokens, drawn.

    show.search(trace)                                   a search as a tree
    show.path(trace)                                     what it kept, by its judge and the oracle
    show.judge(trace)                                    its judge's verdicts and explanations
    show.solution(question, text)                        each step marked by the oracle
    show.answers(question, {"M1": text, "M4": text})     what changed from model to model
    show.tokens(tokenizer, row, logs)                    a DPO row by log-ratio

Each is HTML where that can be shown (JupyterLab, nbconvert, a code host, the report), and plain
text elsewhere. Nothing here takes part in a result, so a change of it makes no stage stale.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from psr_lib import show_matrix, show_steps, show_tree
from psr_lib.log_ratios import affordable, log_ratios
from psr_lib.markup import View, note
from psr_lib.show_examples import complete, differing, local_sets, models, solutions, verdicts
from psr_lib.show_steps import answers, both_orders, pair, solution, verdict
from psr_lib.show_tokens import tokens
from psr_lib.solution_traces import SolutionTrace
from psr_lib.token_rows import StepRow
from psr_lib.traces import SearchTrace

__all__ = ["View", "answers", "both_orders", "complete", "differing", "judge", "local_sets",
           "models", "moved", "pair", "path", "search", "solution", "solutions", "telling",
           "tokens", "verdict", "verdicts"]  # fmt: skip
Trace = SearchTrace | SolutionTrace


def search(trace: Trace) -> View:
    """A search as a tree; under `srlm` its solutions with their points."""
    return show_steps.scored(trace) if isinstance(trace, SolutionTrace) else show_tree.tree(trace)


def path(trace: Trace, scoring: str = "ordered") -> View:
    """The solution that came of a search: each step by the oracle, and its share of wins.

    `scoring`: the search's, which says how many wins a step could have. Under `srlm` the chosen
    solution, which has points as a whole.
    """
    if not isinstance(trace, SolutionTrace):
        return show_steps.searched(trace, scoring)
    if trace.chosen is None:
        return note("no solution was chosen")
    return solution(trace.question.text, trace.solutions[trace.chosen].text)


def judge(trace: Trace, visit: int = 0) -> View:
    """The judge's verdicts in one visit of a search, by default the most telling one."""
    if isinstance(trace, SolutionTrace):
        return show_steps.justified(trace)
    return show_matrix.matrix(trace, visit)


def telling(traces: Iterable[Trace]) -> Trace:
    """The search to look at: of those that gave pairs the shortest with a roll-back.

    Where none rolled back the one with most pairs; at test time, without pairs, a complete one with
    most different candidates.
    """
    return max(traces, key=_worth)


def _worth(trace: Trace) -> tuple[int, ...]:
    if isinstance(trace, SolutionTrace):
        return (len(trace.pairs),)
    visits = trace.expansions
    back = any(e.rolled_back for e in visits)
    size = -len(visits) if back else len(trace.pairs)
    variety = sum(len({c.text for c in e.candidates}) for e in visits)
    return bool(trace.pairs), back, trace.status == "complete", size, variety


def moved(
    tokenizer: Any, rows: Sequence[StepRow], policy: Path | str, reference: Path | str,
    trust: bool = False,
) -> list[View]:  # fmt: skip
    """Step pairs token by token, coloured by how far the policy is from the reference on each.

    `trust` lets the models run code of their own (`model.trust_remote_code`).
    A line that says so where the weights are too large to be loaded only to be looked at.
    """
    if not affordable(policy, reference):
        return [note("the models are too large to be loaded once more for this display")]
    logs = log_ratios(policy, reference, rows, trust)
    return [tokens(tokenizer, row, one) for row, one in zip(rows, logs, strict=True)]
