"""How models are expected to solve, search and judge: numbers of kept runs or of the paper.

A plan is made of settings and of a few rates that no setting tells: how many steps a solution has,
how often siblings differ, how long a verdict is. Each is a `Fact`, which names its source. A run of
the same base model goes first; the paper's tables are next; what neither tells comes from the runs
of another model, and a limit of the preset stands where nothing was measured.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from psr_lib import facts, presets, results
from psr_lib.methods import DATA, EVALUATE, MAIN, SEARCH
from psr_lib.presets import Preset
from psr_lib.records import PSRError

LARGE = 20e9  # parameters from which the paper's 72B is nearer than its 7B
TABLES = {"7B": 7, "72B": 8}  # steps of each model on each benchmark (paper appendix A)
OTHER = "another model, "
Summary = dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """A number that a plan rests on, and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class Expected:
    """Of a model: steps of a solution and tokens of each; of its search: `visits`, expansions a
    step of the solution, `asked`, the share of the w (w - 1) ordered pairs that is judged (copies
    are judged once), `pairs`, preference pairs an expansion; tokens of a verdict. Of a tree search:
    `sampled`, the share of the steps that its iterations may sample, and `siblings`, sibling pairs
    an iteration.
    """

    steps: Fact
    step_tokens: Fact
    visits: Fact
    asked: Fact
    pairs: Fact
    verdict_tokens: Fact
    sampled: Fact
    siblings: Fact

    @property
    def answer_tokens(self) -> float:
        """Tokens of a whole solution."""
        return self.steps.value * self.step_tokens.value


def of_model(preset: Preset, n: int, large: bool, skip: Collection[int] = ()) -> Expected:
    """What is expected of M[n] (n 0 as 1) under a preset; `large`: nearer the paper's 72B.

    Kept runs of the seeds in `skip` are not looked at. Raises PSRError where no run is kept.
    """
    summary = nearest(preset, skip)
    own = _base(summary["preset"]) == preset.model.base
    found = _measured(summary, n, "" if own else OTHER) | _of_trees(preset, skip)
    if not own:
        found |= _of_paper(preset, n, large)
    if _prompts(summary["preset"]) != preset.prompts:
        limit = f"at most: judge.max_tokens (no kept run has the prompts {preset.prompts!r})"
        found["verdict_tokens"] = Fact(preset.judge.max_tokens, limit)
    return Expected(**found)


def nearest(preset: Preset, skip: Collection[int] = ()) -> Summary:
    """The kept summary of psrlm that tells most. Raises PSRError where none is kept."""
    if not (found := _kept(preset, skip)):
        raise PSRError(f"{results.FOLDER}: no kept run of {MAIN}; restore one with git")
    return results.load(*found[0], MAIN)


def _kept(preset: Preset, skip: Collection[int]) -> list[tuple[str, int]]:
    """(preset, seed) of the kept runs of psrlm: of this preset first, then of its base model, of
    its prompts, and any; the first seed of each first."""
    names = (name for name in presets.names() if (results.folder() / name).is_dir())
    found = [(name, seed) for name in names for seed, method in results.kept(name)
             if method == MAIN and seed not in skip]  # fmt: skip
    return sorted(found, key=lambda one: (*_distance(preset, one[0]), one))


def _distance(preset: Preset, name: str) -> tuple[bool, bool, bool]:
    prompts = _prompts(name) != preset.prompts
    return name != preset.name, _base(name) != preset.model.base, prompts


@cache
def _preset(name: str) -> Preset:
    return presets.load(name)


def _base(name: str) -> str:
    return _preset(name).model.base


def _prompts(name: str) -> str:
    return _preset(name).prompts


def _measured(summary: Summary, n: int, whose: str) -> dict[str, Fact]:
    """The facts that a summary tells of M[n], or of the model nearest to it that searched."""
    made = min((one for one in summary["stages"] if one["stage"] == SEARCH
                and one["method"] == summary["method"]),
               key=lambda one: abs(one["iteration"] - 1 - n))  # fmt: skip
    counts, model = made["counts"], made["iteration"] - 1
    width = counts["candidates"] / counts["expansions"]
    step = counts["generated_tokens"] / counts["candidates"]
    steps = answer_tokens(summary, n if n in range(len(summary["models"])) else model) / step
    values = {
        "steps": steps, "step_tokens": step,
        "visits": counts["expansions"] / counts["problems"] / steps,
        "asked": counts["judge_made"] / counts["expansions"] / (width * (width - 1)),
        "pairs": counts["pairs"] / counts["expansions"],
        "verdict_tokens": counts["judged_tokens"] / max(1, counts["judge_made"]),
    }  # fmt: skip
    if not n:  # M0 never searches, and judges without having learned to
        pairs = summary["models"][0]["judge"]["n"]
        values["verdict_tokens"] = _evaluation(summary, 0)["judged"] / pairs
    run = f"{whose}kept run of {summary['preset']}, seed {summary['seed']}, M{model}"
    return {name: Fact(value, run) for name, value in values.items()}


def answer_tokens(summary: Summary, n: int) -> float:
    """Mean tokens of a greedy answer of M[n]; of a model near it where that was not kept."""
    models = summary["models"]
    if "tokens" in models[n]:
        return models[n]["tokens"]["generated"]
    plain = [k for k, model in enumerate(models) if "search_accuracy" not in model]
    near = min(plain or [n], key=lambda k: (abs(k - n), k))
    problems = sum(map(len, models[near]["outcomes"].values()))
    return _evaluation(summary, near)["generated"] / problems


def _evaluation(summary: Summary, n: int) -> dict[str, int]:
    """The tokens of M[n]'s evaluation."""
    made = (one for one in summary["stages"] if one["stage"] == EVALUATE and one["iteration"] == n)
    return next(made)["tokens"]


def _of_trees(preset: Preset, skip: Collection[int]) -> dict[str, Fact]:
    """What the nearest kept run that has trees tells of them; else what there is at most."""
    for name, seed in _kept(preset, skip):
        summary = results.load(name, seed, MAIN)
        counts = next(one["counts"] for one in summary["stages"] if one["stage"] == DATA)
        if "tree_candidates" in counts:
            return _tree_facts(summary, counts, _base(name) == preset.model.base)
    return dict.fromkeys(("sampled", "siblings"), Fact(1.0, "at most: no kept run has trees"))


def _tree_facts(summary: Summary, counts: dict[str, Any], own: bool) -> dict[str, Fact]:
    changed = summary.get("changed", {})
    iterations, width, depth = (
        changed.get(f"tree.{name}", getattr(_preset(summary["preset"]).tree, name))
        for name in ("iterations", "width", "simulation_depth")
    )
    visits = counts["trees"] * iterations
    steps = counts["tree_candidates"] + counts.get("tree_rolled", 0)
    run = f"kept run of {summary['preset']}, seed {summary['seed']}"
    source = f"{'' if own else OTHER}{run}, its trees"
    share = steps / visits / (width + depth)
    return {"sampled": Fact(share, source), "siblings": Fact(counts["pairs"] / visits, source)}


def _of_paper(preset: Preset, n: int, large: bool) -> dict[str, Fact]:
    """Number and length of steps in the paper's answers (its unit of length is not said)."""
    base, model = ("72B" if large else "7B"), f"M{_round(n)}"
    column = "gsm8k" if "gsm" in preset.data.source else "math"
    source = f"the paper, Table {TABLES[base]}, {base} {model} on {column}"
    steps, tokens = _steps(base, model, column)
    return {"steps": Fact(steps, source), "step_tokens": Fact(tokens, source)}


def _steps(base: str, model: str, column: str) -> tuple[float, float]:
    """Steps of an answer and tokens of a step, as the paper has them."""
    places = (f"{TABLES[base]}/{base}/{row}/{model}/{column}" for row in ("number", "length"))
    number, length = (float(facts.look_up(place)) for place in places)
    return number, length


def _round(n: int) -> int:
    """The paper's model nearest to M[n]: it has M1 to M4."""
    return min(max(n, 1), 4)


def on_benchmark(name: str, expected: Expected, n: int, large: bool) -> float:
    """Tokens of an answer on a benchmark: the paper's own where the steps are from the paper."""
    if not expected.steps.source.startswith("the paper") or name not in facts.SETS:
        return expected.answer_tokens
    number, length = _steps("72B" if large else "7B", f"M{_round(n)}", name)
    return number * length
