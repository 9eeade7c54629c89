"""Summaries of finished runs, small enough to keep in the repository (data/results).

A summary holds what tables, tests and the README's cost table need: accuracy and judge accuracy of
every model, every problem's outcome as a string of 0 and 1, each stage's time and tokens, and what
it was set to. Every run on the test sets is also logged as a line of `confirmations.csv`; lines
are only ever added.
"""

import csv
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from psr_lib import integrity, lineage, manifest, presets, run_details, stages
from psr_lib.evaluation import MEAN, outcomes, read_csv
from psr_lib.methods import BASE, EVALUATE, REFERENCE
from psr_lib.records import PSRError, read_json, read_jsonl, write_json, write_text
from psr_lib.run_details import Take
from psr_lib.run_dirs import Key, RunDir

FOLDER = "data/results"
LOG = "confirmations.csv"
MAP_FILES = ("figure2.csv", "figure2_separation.csv")  # drawn by notebook 08, kept for the README
LOG_COLUMNS = (
    "date", "commit", "dirty", "preset", "params_hash", "seed", "method", "models",
    "mean_first", "mean_last", "judge_first", "judge_last", "seconds",
)  # fmt: skip


def folder() -> Path:
    """Where summaries are kept."""
    return manifest.root() / FOLDER


def summarise(
    run: RunDir, method: str, rounds: int, take: Take = lambda path: path
) -> dict[str, Any]:
    """The summary of one method's run; raises PSRError naming the first stage that is missing."""
    for key in run_stages(method, rounds):
        _read(run, key)
    found = gather(run, method, rounds, take)
    assert found is not None
    return found


def gather(
    run: RunDir, method: str, rounds: int, take: Take = lambda path: path
) -> dict[str, Any] | None:
    """The summary of what a method's run holds so far, None if it holds nothing.

    `take` is told each file before it is read.
    """
    made = _made(run.folder(key) for key in run_stages(method, rounds))
    if not made:
        return None
    labs = _made(run.lab(method, n) for n in range(rounds + 1))
    models = [_model_summary(run, method, n, take) for n in range(rounds + 1)
              if manifest.read(run.eval(method, n)) is not None]  # fmt: skip
    params = [m["params"] for m in made]
    return {
        "preset": run.preset, "seed": run.seed, "method": method,
        "split": next((p["data"]["split"] for p in params if "data" in p), ""),
        "base": next((p["model"]["base"] for p in params if "model" in p), ""),
        "git": made[-1]["git"], "params_hash": _settings_hash(made),
        "versions": made[-1]["versions"], "device": made[-1]["device"],
        "models": models, "stages": [_cost(m) for m in made],
        "settings": lineage.by_stage([*made, *labs]), "mixed": _mixed(run, [*made, *labs]),
        **run_details.laboratory([run.round(method, n) for n in range(rounds, 0, -1)], take),
    }  # fmt: skip


def gather_reference(run: RunDir, take: Take = lambda path: path) -> dict[str, Any] | None:
    """The summary of the API model that was measured in a run, None if there is none."""
    home = run.path / REFERENCE
    made = manifest.read(home / "eval")
    if made is None:
        return None
    name = made["params"].get("engine", {}).get("model", "API model")
    model = _outcomes(home / "eval", take)[0] | {"model": name}
    return {"preset": run.preset, "seed": run.seed, "method": REFERENCE, "split": "", "base": "",
            "git": made["git"], "models": [model], "stages": [_cost(made)],
            "settings": lineage.by_stage([made]), "mixed": _mixed(run, [made]),
            **run_details.laboratory([home], take)}  # fmt: skip


def _made(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The manifests of those folders whose stage is complete."""
    return [found for found in map(manifest.read, folders) if found is not None]


def _mixed(run: RunDir, made: Iterable[dict[str, Any]]) -> list[str]:
    """The folders of those stages that read something which was made anew since."""
    return [run.folder(integrity.key_of(one)).relative_to(run.path).as_posix()
            for one in made if integrity.outdated(run, one)]  # fmt: skip


def run_stages(method: str, rounds: int) -> list[Key]:
    """Every stage of a method from base model to last evaluation, borrowed ones included."""
    targets = [Key(BASE), Key(EVALUATE)]
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


def _model_summary(run: RunDir, method: str, n: int, take: Take) -> dict[str, Any]:
    home = run.eval(method, n)
    found, answers = _outcomes(home, take)
    found |= {"model": f"M{n}", **run_details.of_model(run, method, n, answers, take)}
    if (home / "search_accuracy.csv").is_file():
        rows = read_csv(take(home / "search_accuracy.csv"))
        found["search_accuracy"] = {row["benchmark"]: float(row["accuracy"]) for row in rows}
    return found


def _outcomes(home: Path, take: Take) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What every evaluation holds, and its answers."""
    rows = read_csv(take(home / "accuracy.csv"))
    answers = read_jsonl(take(home / "answers.jsonl.gz"))
    found = {
        "model": "",
        "accuracy": {row["benchmark"]: float(row["accuracy"]) for row in rows},
        "judge": read_json(take(home / "judge.json")),
        "outcomes": {name: "".join(map(str, b)) for name, b in outcomes(answers).items()},
    }
    return found, answers


def keep(run: RunDir, method: str, rounds: int, take: Take = lambda path: path) -> Path:
    """Write the summary below `data/results` and, on the test sets, add a line to the log.

    `take` is told each file before it is read. What its numbers came from is kept with it, and
    in `changed` the settings that were not the preset's.
    """
    found = summarise(run, method, rounds, take)
    ends = [run.folder(key) for key in run_stages(method, rounds)]
    ends += [run.lab(method, n) for n in range(rounds + 1)] + [run.steps]
    found["provenance"] = lineage.brief(run, ends)
    found["changed"] = changed(run.preset, found["provenance"]["settings"])
    path = folder() / run.preset / f"seed{run.seed}" / f"{method}.json"
    write_json(path, found)
    if found["split"] == "test":
        _log(found)
    return path


def changed(preset: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that are not its preset's, as `data.ift` (what a control switches too).

    `settings`: values or sections by name, as `lineage.settings` has them.
    """
    own = presets.load(preset)
    now = {name: presets.plain(getattr(own, name)) for name in settings if hasattr(own, name)}
    before, after = _flat(now), _flat(settings)
    return {key: after[key] for key in after if key in before and after[key] != before[key]}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Sections as dotted keys."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inside = isinstance(value, dict)
        found |= {f"{name}.{key}": value[key] for key in value} if inside else {name: value}
    return found


def _log(found: dict[str, Any]) -> None:
    """Add one line; the file is read and written whole, so a line is never half there."""
    path, out = folder() / LOG, StringIO()
    csv.DictWriter(out, LOG_COLUMNS, lineterminator="\n").writerow(_line(found))
    with alone():
        old = path.read_text(encoding="utf-8") if path.is_file() else ",".join(LOG_COLUMNS) + "\n"
        write_text(path, old + out.getvalue())


@contextmanager
def alone() -> Iterator[None]:
    """Wait for others that keep a run just now: each has its own run, but files are shared."""
    folder().mkdir(parents=True, exist_ok=True)
    handle = os.open(folder(), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _line(found: dict[str, Any]) -> dict[str, Any]:
    first, last, git = found["models"][1], found["models"][-1], found["git"]
    return {
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


def keep_map(runs: Sequence[RunDir]) -> Path | None:
    """Keep Figure 2's points and separation, from the first of these runs whose notebook 08 ran.

    Raises PSRError where they are not what that notebook wrote.
    """
    for run in runs:
        made = [run.paper / "figures" / name for name in MAP_FILES]
        if manifest.read(run.paper) and all(path.is_file() for path in made):
            texts = [integrity.check(run, path).read_text(encoding="utf-8") for path in made]
            with alone():
                for name, text in zip(MAP_FILES, texts, strict=True):
                    write_text(folder() / run.preset / name, text)
            return folder() / run.preset / MAP_FILES[0]
    return None
