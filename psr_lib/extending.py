"""What notebook 09 calls: one round made once more with a changed preset, beside the first one."""

from collections.abc import Mapping
from typing import Any

from psr_lib import building, manifest, presets, stages, variants
from psr_lib.methods import EVALUATE
from psr_lib.run_dirs import Key, RunDir
from psr_lib.traces import SearchTrace, TraceFile

FOLDER = "variants"
COUNTS = ("pairs", "tie_rate", "judge_calls", "judge_made", "judge_consistency", "judged_tokens")


def rerun(
    name: str, changes: str, *, preset: str, method: str, iteration: int, seed: int,
    runs_dir: str, overrides: str,
) -> dict[str, RunDir]:  # fmt: skip
    """The round as the preset has it, and as `changes` make it, in a folder of that name.

    Both are built up to M[iteration]; what the changes do not touch is made once. Raises PSRError
    in one line where a change is wrong, or a stage fails.
    """
    target = Key(EVALUATE, method, iteration)
    changed = " ".join([overrides, changes])
    settings = presets.load(preset, changed)
    first = RunDir(preset, seed, runs_dir)
    second = RunDir(preset, seed, f"{runs_dir}/{FOLDER}/{name}")
    building.build(first, target, method, overrides)
    variants.share([first], second, stages.in_order(stages.needs(target)), settings)
    building.build(second, target, method, changed)
    return {preset: first, name: second}


def compared(made: Mapping[str, RunDir], method: str, n: int) -> list[dict[str, Any]]:
    """What the searches for M[n] counted, and how many pairs were trained on; a row a count."""
    found = {name: _counts(run, method, n) for name, run in made.items()}
    names = dict.fromkeys(key for counts in found.values() for key in counts)
    return [{"count": key, **{name: counts.get(key, 0) for name, counts in found.items()}}
            for key in names]  # fmt: skip


def _counts(run: RunDir, method: str, n: int) -> dict[str, Any]:
    search, dpo = (_manifest(run, stage, method, n)["counts"] for stage in ("ppd", "model"))
    left_out = {key: count for key, count in dpo.items() if key.startswith("left out by")}
    chosen = {key: search[key] for key in COUNTS if key in search}
    return {**chosen, **left_out, "trained on": dpo["used"]}


def _manifest(run: RunDir, part: str, method: str, n: int) -> dict[str, Any]:
    found = manifest.read(run.round(method, n) / part)
    assert found is not None
    return found


def provenance(run: RunDir, method: str, n: int) -> list[dict[str, str]]:
    """Which files from outside the stages of a round were made with, by their hashes."""
    parts = {part: _manifest(run, part, method, n)["code"] for part in ("ppd", "model")}
    return [{"stage": part, "file": name, "sha256": text[:16]} for part, code in parts.items()
            for name, text in code.items() if name.startswith("extension ")]  # fmt: skip


def traces(run: RunDir, method: str, n: int) -> list[SearchTrace]:
    """The searches that made the pairs of M[n]."""
    return list(TraceFile(run.ppd(method, n) / "traces.jsonl.gz"))


def flow(made: Mapping[str, RunDir], method: str, n: int) -> list[dict[str, Any]]:
    """Pairs that each search left, and how many of them were trained on."""
    return [{"what": f"{name}: {what}", "count": _counts(run, method, n)[what]}
            for name, run in made.items() for what in ("pairs", "trained on")]  # fmt: skip
