"""Summaries of finished runs, small enough to keep in the repository (data/results).

A summary holds what tables, tests and the README's cost table need: accuracy and judge accuracy of
every model, every problem's outcome as a string of 0 and 1, and each stage's time and tokens. Every
run on the test sets is also logged as a line of `confirmations.csv`; lines are only ever added.
"""

import csv
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from psr_lib import manifest, stages
from psr_lib.evaluation import MEAN, outcomes, read_csv
from psr_lib.records import PSRError, read_json, read_jsonl, write_json, write_text
from psr_lib.stages import Key, RunDir
from psr_lib.stats import Difference, paired_bootstrap

FOLDER = "data/results"
LOG = "confirmations.csv"
LOG_COLUMNS = (
    "date", "commit", "dirty", "preset", "params_hash", "seed", "method", "models",
    "mean_first", "mean_last", "judge_first", "judge_last", "seconds",
)  # fmt: skip


def folder() -> Path:
    """Where summaries are kept."""
    return manifest.root() / FOLDER


def summarise(run: RunDir, method: str, rounds: int) -> dict[str, Any]:
    """The summary of one method's run; raises PSRError naming the first stage that is missing."""
    models = [_model_summary(run, method, n) for n in range(rounds + 1)]
    made = [_read(run, key) for key in run_stages(method, rounds)]
    return {
        "preset": run.preset, "seed": run.seed, "method": method,
        "split": next(m["params"]["data"]["split"] for m in made if "data" in m["params"]),
        "git": made[-1]["git"], "params_hash": _settings_hash(made),
        "versions": made[-1]["versions"], "device": made[-1]["device"],
        "models": models, "stages": [_cost(m) for m in made],
    }  # fmt: skip


def run_stages(method: str, rounds: int) -> list[Key]:
    """Every stage of a method from base model to last evaluation, borrowed ones included."""
    targets = [Key(stages.BASE), Key(stages.EVALUATE)]
    for n in range(1, rounds + 1):
        targets += stages.round_keys(method, n)
    return stages.in_order(targets)


def _read(run: RunDir, key: Key) -> dict[str, Any]:
    found = manifest.read(run.folder(key))
    if found is None:
        raise PSRError(
            f"{manifest.shown(run.folder(key))}: {key} is not complete; run make reproduce"
        )
    return found


def _settings_hash(made: Sequence[dict[str, Any]]) -> str:
    """One hash for all parameters of the run but its seed."""
    from psr_lib.records import hash_json

    return hash_json([{**m["params"], "seed": None} for m in made])[:16]


def _cost(made: dict[str, Any]) -> dict[str, Any]:
    names = ("stage", "method", "iteration", "wall_seconds", "tokens", "counts")
    return {name: made[name] for name in names}


def _model_summary(run: RunDir, method: str, n: int) -> dict[str, Any]:
    home = run.eval(method, n)
    _read(run, Key(stages.EVALUATE, "" if n == 0 else method if n > 1 else stages.MAIN, n))
    accuracy = {row["benchmark"]: float(row["accuracy"]) for row in read_csv(home / "accuracy.csv")}
    answers = outcomes(read_jsonl(home / "answers.jsonl.gz"))
    found = {
        "model": f"M{n}", "accuracy": accuracy, "judge": read_json(home / "judge.json"),
        "outcomes": {name: "".join(map(str, bits)) for name, bits in answers.items()},
    }  # fmt: skip
    if (home / "search_accuracy.csv").is_file():
        rows = read_csv(home / "search_accuracy.csv")
        found["search_accuracy"] = {row["benchmark"]: float(row["accuracy"]) for row in rows}
    return found


def keep(run: RunDir, method: str, rounds: int) -> Path:
    """Write the summary below `data/results` and, on the test sets, add a line to the log."""
    found = summarise(run, method, rounds)
    path = folder() / run.preset / f"seed{run.seed}" / f"{method}.json"
    write_json(path, found)
    if found["split"] == "test":
        _log(found)
    return path


def _log(found: dict[str, Any]) -> None:
    """Add one line; the file is read and written whole, so a line is never half there."""
    path, first, last = folder() / LOG, found["models"][1], found["models"][-1]
    old = path.read_text(encoding="utf-8") if path.is_file() else ",".join(LOG_COLUMNS) + "\n"
    git = found["git"]
    row = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": (git["commit"] or "")[:12], "dirty": git["dirty"],
        "preset": found["preset"], "params_hash": found["params_hash"],
        "seed": found["seed"], "method": found["method"],
        "models": f"{first['model']}-{last['model']}",
        "mean_first": f"{first['accuracy'][MEAN]:.4f}",
        "mean_last": f"{last['accuracy'][MEAN]:.4f}",
        "judge_first": f"{first['judge']['accuracy']:.4f}",
        "judge_last": f"{last['judge']['accuracy']:.4f}",
        "seconds": f"{sum(s['wall_seconds'] for s in found['stages']):.0f}",
    }  # fmt: skip
    out = StringIO()
    csv.DictWriter(out, LOG_COLUMNS, lineterminator="\n").writerow(row)
    write_text(path, old + out.getvalue())


def load(preset: str, seed: int, method: str) -> dict[str, Any]:
    """A kept summary; raises PSRError if there is none."""
    path = folder() / preset / f"seed{seed}" / f"{method}.json"
    if not path.is_file():
        raise PSRError(f"{FOLDER}: no summary of {preset} seed {seed} {method}; run make keep")
    return read_json(path)


def kept(preset: str) -> list[tuple[int, str]]:
    """(seed, method) of every kept summary of a preset."""
    paths = sorted((folder() / preset).glob("seed*/*.json"))
    return [(int(path.parent.name.removeprefix("seed")), path.stem) for path in paths]


def bits(summary: dict[str, Any], model: int) -> dict[str, list[int]]:
    """Each benchmark's outcomes, 0 or 1 a problem, in the order of problem ids."""
    return {k: [int(c) for c in v] for k, v in summary["models"][model]["outcomes"].items()}


def level(summaries: Sequence[dict[str, Any]], model: int) -> Difference:
    """Mean accuracy of M[model] over the benchmarks, averaged over seeds: its gain over zero."""
    right = [bits(s, model) for s in summaries]
    zero = [{name: [0] * len(row) for name, row in one.items()} for one in right]
    return paired_bootstrap(zero, right)


def rise(summaries: Sequence[dict[str, Any]], first: int = 1, last: int = -1) -> Difference:
    """M[first] -> M[last] in the mean over benchmarks, paired by problem, averaged over seeds."""
    return paired_bootstrap([bits(s, first) for s in summaries], [bits(s, last) for s in summaries])


def shared(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> tuple[list, list]:
    """The summaries of two methods whose seeds both have, in the order of ours."""
    seeds = {one["seed"]: one for one in theirs}
    both = [one for one in ours if one["seed"] in seeds]
    return both, [seeds[one["seed"]] for one in both]


def lead(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], model: int = -1
) -> Difference:
    """How far one method's model is above another's, seeds and problems paired."""
    return paired_bootstrap([bits(s, model) for s in theirs], [bits(s, model) for s in ours])
