"""The chain's output that comes with the repository, so that a first run need not wait for it.

    python -m psr_lib.shipped --preset tiny --seed 0

copies the output of a finished data stage into `data/tiny/chain/seed<S>`. A run of the same
settings, seed and base model takes it from there; `make data FORCE=1` makes its own.
"""

import argparse
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from psr_lib import manifest
from psr_lib.methods import DATA
from psr_lib.presets import Preset
from psr_lib.records import (
    JudgeExample,
    PSRError,
    atomic,
    hash_file,
    hash_json,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import FORCED, parameters

HOME = "data/tiny/chain"
ROWS = ("eft", "eft_heldout")
REPORTS = ("prm_report.json", "prm_calibration.csv", "funnel.csv")
MARK = "made_from.json"
POOLS = ("source", "ift", "ift_shares", "eft_from", "eft", "eft_shares", "eft_heldout")


def key_of(params: dict[str, Any], base: str) -> str:
    """sha256 of what the rows depend on: a data stage's parameters but those that change no row.

    The code is left out, as in every file that ships.
    """
    whole = ("seed", "prompts", "model", "prm", "annotate", "templates")
    left = {name: params[name] for name in whole}
    # The tree's policy has epochs of its own.
    left["sft"] = {name: value for name, value in params["sft"].items() if name != "epochs"}
    left["data"] = {name: params["data"][name] for name in POOLS}
    left["tree"] = {name: value for name, value in params["tree"].items() if name != "live"}
    left["teacher"] = {name: params["teacher"][name] for name in ("judge", "model")}
    return hash_json(left | {"base": base})


def find(stage: Any) -> Path | None:
    """Where the rows of just this stage lie; None where they do not, or the run makes its own."""
    folder = manifest.root() / HOME / f"seed{stage.seed}"
    if (stage.run.making / FORCED).exists() or not (folder / MARK).is_file():
        return None
    key = key_of(stage.params, manifest.identity(stage.model(0)))
    return folder if read_json(folder / MARK)["key"] == key else None


def ahead(preset: Preset, run: RunDir) -> Path | None:
    """Where the rows of this run's data stage will be found, before it is opened."""
    params = parameters(preset, Key(DATA), run.seed)
    base = manifest.root() / Path(preset.model.base).expanduser()
    stage = SimpleNamespace(seed=run.seed, run=run, params=params, model=lambda _: base)
    return find(stage)


def take(stage: Any, folder: Path) -> dict[str, list[JudgeExample]]:
    """The rows of that folder; its reports become the stage's. PSRError if a file was changed."""
    for name, digest in read_json(folder / MARK)["files"].items():
        if not (folder / name).is_file() or hash_file(folder / name) != digest:
            raise PSRError(f"{manifest.shown(folder / name)}: not as it was shipped; restore it "
                           "with git, or make data FORCE=1")  # fmt: skip
    stage.source(str(folder))
    for name in REPORTS:
        shutil.copyfile(folder / name, stage.output(name))
    stage.count(shipped=True, **{
        f"prm_{name}": value for name, value in read_json(folder / "prm_report.json").items()
    })  # fmt: skip
    return {name: read_jsonl(folder / f"{name}.jsonl.gz", JudgeExample) for name in ROWS}


def keep(run: RunDir) -> Path:
    """Copy the output of a run's finished data stage to where `find` looks.

    Raises PSRError where the stage is not finished, or its EFT is not from the chain.
    """
    found = manifest.read(run.data)
    if found is None or "tree" not in found["params"]:
        place = manifest.shown(run.data)
        raise PSRError(f"{place}: no finished chain; make data SET=data.eft_from=chain FORCE=1")
    folder = manifest.root() / HOME / f"seed{run.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).unlink(missing_ok=True)  # nobody takes what is only half there
    for name in ROWS:
        rows = read_jsonl(run.data / f"{name}.jsonl", JudgeExample)
        write_jsonl(folder / f"{name}.jsonl.gz", rows)
    for name in REPORTS:
        with atomic(folder / name) as part:
            shutil.copyfile(run.data / name, part)
    base = manifest.root() / found["params"]["model"]["base"]
    mark(folder, key_of(found["params"], manifest.identity(base)))
    return folder


def mark(folder: Path, key: str) -> None:
    """Write down, last of all, what the folder's rows were made from, and their hashes."""
    names = (*(f"{name}.jsonl.gz" for name in ROWS), *REPORTS)
    write_json(folder / MARK, {"key": key, "files": {n: hash_file(folder / n) for n in names}})


def main() -> int:
    """Keep the output of a run's data stage; errors are one line."""
    parser = argparse.ArgumentParser(prog="python -m psr_lib.shipped")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args()
    try:
        print(manifest.shown(keep(RunDir(args.preset, args.seed, args.runs_dir))))
    except PSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
