"""A training call as files: what each process of a launch reads, and what the main one writes."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from psr_lib import manifest, prompts, registry
from psr_lib.records import (
    IFTExample,
    JudgeExample,
    ScoreExample,
    StepLabels,
    StepPair,
    from_dict,
    hash_file,
    hash_json,
    iter_jsonl,
    read_json,
    to_dict,
    write_json,
    write_jsonl,
)

JOB, RESULT, ERROR = "job.json", "result.json", "error."
CHECKPOINTS = "checkpoints"
KINDS = {kind.__name__: kind for kind in
         (IFTExample, JudgeExample, ScoreExample, StepLabels, StepPair)}  # fmt: skip
ROWS, MODELS = ("rows", "pairs", "replay"), ("model_dir", "reference_dir")
MADE_THERE = ("tokenizer", "on_progress")  # each process has its own


def write(
    folder: Path, function: str, given: Mapping[str, Any], processes: int, every: int
) -> None:
    """The call in a folder; what an earlier call left there stays if it was the same one."""
    rows = {name: [{"kind": type(row).__name__, "row": to_dict(row)} for row in given[name]]
            for name in ROWS if name in given}  # fmt: skip
    wanted: dict[str, Any] = {
        "function": function, "processes": processes, "every": every, "code": _code(),
        "call": {name: _plain(value) for name, value in given.items()
                 if name not in (*ROWS, *MADE_THERE)},
        "rows": {name: hash_json(found) for name, found in rows.items()},
        "extensions": {str(path): hash_file(path) for path in registry.imported()},
        "models": {name: manifest.identity(given[name]) for name in MODELS if name in given},
    }  # fmt: skip
    wanted = json.loads(json.dumps(wanted))  # as it will be read: tuples are lists there
    if (folder / JOB).is_file() and read_json(folder / JOB) == wanted:
        (folder / RESULT).unlink(missing_ok=True)
        return
    _clear(folder)
    for name, found in rows.items():
        write_jsonl(folder / f"{name}.jsonl", found)
    write_json(folder / JOB, wanted)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job, and the arguments of its call but those that each process makes itself.

    Extensions are imported, since settings may name what they register.
    """
    found = read_json(folder / JOB)
    for path in found["extensions"]:
        registry.use(path)
    call = dict(found["call"])
    call["settings"] = SimpleNamespace(**call["settings"])
    call["family"] = prompts.load(call["family"])
    for name in found["rows"]:
        rows = iter_jsonl(folder / f"{name}.jsonl")
        call[name] = [from_dict(KINDS[row["kind"]], row["row"]) for row in rows]
    return found, call


def _plain(value: Any) -> Any:
    """An argument as JSON holds it."""
    if isinstance(value, prompts.Family):
        return value.name
    if isinstance(value, SimpleNamespace):
        return dict(vars(value))
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(Path(value).resolve()) if isinstance(value, Path) else value


def _code() -> str:
    """The library as it is: a checkpoint of other code is not gone on with."""
    files = sorted(Path(__file__).parent.parent.rglob("*.py"))
    return hash_json([hash_file(path) for path in files])


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()
