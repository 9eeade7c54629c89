"""A run folder made by hand, whose manifests hold what the runner's hold: for cards and exports."""

from typing import Any

from psr_lib import manifest, stages
from psr_lib.evaluation import write_csv
from psr_lib.presets import load
from psr_lib.records import write_json, write_jsonl
from psr_lib.run_dirs import Key, RunDir

ACCURACY = [
    {"benchmark": "easy", "n": 8, "accuracy": 0.625, "low": 0.3057, "high": 0.8632},
    {"benchmark": "mean", "n": 8, "accuracy": 0.625, "low": 0.3057, "high": 0.8632},
]
JUDGE = {"n": 24, "accuracy": 0.9166, "low": 0.7415, "high": 0.9768}
COUNTS = {"03_search_judge": {"problems": 8, "pairs": 21, "tie_rate": 0.37384},
          "04_step_dpo": {"rows": 21, "used": 20, "updates": 5}}  # fmt: skip


def finish(run: RunDir, key: Key, inputs: dict[str, Any] | None = None, **params: Any) -> None:
    """Write the manifest of a stage whose files are there, as `Stage.finish` does."""
    folder, preset = run.folder(key), load(run.preset)
    resolved = stages.parameters(preset, key, run.seed) | params
    names = manifest.files_in(folder)
    write_json(folder / manifest.NAME, {
        "format": 1, "status": "complete", "stage": key.stage,
        "preset": run.preset, "method": key.method, "iteration": key.n, "seed": run.seed,
        "by_hand": False, "params": resolved, "params_hash": stages.params_hash(resolved),
        "code": {}, "git": {"commit": "0123456789abcdef", "dirty": False},
        "inputs": inputs or {}, "versions": {"torch": "1.2.3"}, "device": "cpu (2 cores)",
        "outputs": {name: manifest.describe(folder / name) for name in names},
        "started": "2026-01-01T00:00:00Z", "wall_seconds": 12.5,
        "tokens": {"generated": 3000, "judged": 7000}, "counts": COUNTS.get(key.stage, {}),
    })  # fmt: skip


def make_run(root: Any, preset: str = "smoke", method: str = "psrlm") -> RunDir:
    """M1 and M2 with their data and, of M2, an evaluation; the weights are no weights."""
    run = RunDir(preset, 0, root)
    write_jsonl(run.data / "ift.jsonl", [{"id": k} for k in range(1200)])
    write_jsonl(run.data / "eft.jsonl", [{"id": k} for k in range(128)])
    finish(run, Key("01_data_prep"))
    for key in (Key("02_init", "psrlm", 1), Key("04_step_dpo", method, 2)):
        write_json(run.folder(key) / "model.safetensors", {"of": key.n})
        source = {"run:psrlm/M1/model": {"hash": "f" * 64}} if key.n == 2 else {}
        finish(run, key, source)
    write_jsonl(run.ppd(method, 2) / "ppd.jsonl", [{"id": k} for k in range(21)])
    finish(run, Key("03_search_judge", method, 2))
    evaluate(run, method)
    return run


def evaluate(run: RunDir, method: str) -> None:
    """The evaluation of M2."""
    home = run.eval(method, 2)
    write_csv(home / "accuracy.csv", ACCURACY)
    write_json(home / "judge.json", JUDGE)
    finish(run, Key("05_evaluate", method, 2))
