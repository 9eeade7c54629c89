"""`make iteration N=2 PRESET=paper-7b DRY=1`: a round without its model, its data and its bill.

The same notebooks go through the same stages in `runs/dry`, where nothing of a real run lies. In
the place of the model stands an untrained narrow copy of its architecture; what comes from the hub
or from an API comes from the laboratory's generator and its oracle; sizes are small. Nothing is
downloaded. What was checked, replaced and left open is printed at the end.
"""

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psr_lib import manifest, preflight, prompts, requirements, stages, stand_in
from psr_lib.engines import opening
from psr_lib.environ import variables
from psr_lib.launch import command
from psr_lib.models import device_of, slow_bfloat16
from psr_lib.preflight import CHECKED, OPEN, REPLACED, WRONG, Row
from psr_lib.presets import PROCEDURAL, Preset, quoted
from psr_lib.records import PSRError
from psr_lib.request import Request
from psr_lib.run_dirs import Key

FOLDER = "dry"
# No library asks the hub in a dry run, nor do the kernels that it starts.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
# Enough updates for a narrow copy to write steps and verdicts at all; its numbers mean nothing.
SMALL = {
    "data.ift": 144, "data.ift_shares": "{easy: 1}", "data.eft": 72,
    "data.eft_shares": "{easy: 1}", "data.eft_heldout": 8, "data.benchmark_size": 2,
    "data.search_size": 1, "search.temperature": 0.8, "search.max_iterations": 5,
    "search.max_step_tokens": 96, "judge.temperature": 0.8, "judge.max_tokens": 192,
    "eval.max_tokens": 192, "srlm.max_tokens": 192, "srlm.max_score_tokens": 192,
    "sft.epochs": 6, "sft.lr": 5e-3, "sft.lora_r": 0,
}  # fmt: skip
STANDS = "untrained, narrow, of the same architecture; its tokenizer is a byte-level BPE made here"
BATCH, QUESTIONS, MORE = 4, 4, 24


def rehearse(args: argparse.Namespace, build: Callable[[Request, list[Key]], Any]) -> None:
    """Check the preset, carry out its stages with stand-ins, and print what was found.

    Raises PSRError at the end where a check failed that would end the real run.
    """
    real = Request(args)
    keys = stages.round_keys(real.method, real.round(args.n))
    rows = preflight.look(real.preset, real.run, stages.in_order(keys))
    home = Path(args.runs_dir) / FOLDER
    swaps = replaced(real.preset, manifest.root() / home / "models")
    print(f"dry run of preset {real.preset.name}: nothing is downloaded, paid or kept; numbers "
          f"below mean nothing\n{preflight.table(_announced(swaps))}", flush=True)  # fmt: skip
    dry = copy.copy(args)
    dry.runs_dir, dry.dry = str(home), False
    changes = (f"{key}={quoted(value)}" for key, (value, _) in swaps.items())
    dry.overrides = " ".join([real.overrides, *changes])
    request = Request(dry)
    try:
        with variables(dict.fromkeys(OFFLINE, "1")):
            build(request, keys)
    finally:
        rows += [_stage(request, key) for key in stages.in_order(keys)]
        print(f"\nwhat was checked\n{preflight.table([*rows, *_left_out(real.preset)])}")
    print(f"\nthe dry run lies in {manifest.shown(request.run.path)}; it may be removed")
    if wrong := preflight.failed(rows):
        raise PSRError(f"dry run: {len(wrong)} of the checks above would end the real run, first "
                       f"{wrong[0].what}: {wrong[0].detail}")  # fmt: skip


def replaced(preset: Preset, home: Path) -> dict[str, tuple[Any, str]]:
    """Settings that a dry run replaces, each with its value and why ('' where it is a size)."""
    engine, launch = _engine(preset), _launch(preset)
    wide = "engine.kind" not in engine and preset.engine.kind != "hf"
    family = prompts.load(preset.prompts)
    base = stand_in.make(preset.model.base, family, home, wide)
    processes = 1 if "train.launch" in launch else _processes(preset)
    found = {key: (value, "") for key, value in SMALL.items()}
    found["data.questions"] = (f"[{','.join([str(QUESTIONS)] * (preset.rounds - 1))}]", "")
    # None stays none: a run with METHOD=ift-more would end there, and so does this one.
    found["data.ift_more"] = (min(MORE, preset.data.ift_more), "")
    found["sft.batch"] = (processes * -(-BATCH // processes), "")
    found["model.base"] = (manifest.shown(base), STANDS)
    return found | _formats(preset) | _data(preset) | engine | launch


def _data(preset: Preset) -> dict[str, tuple[Any, str]]:
    """Problems, teachers, pairs and test sets of the laboratory in the place of others."""
    data, found = preset.data, {}
    if data.source != PROCEDURAL:
        found["data.source"] = (PROCEDURAL, "problems that are made here")
    for use in ("ift", "judge"):
        if getattr(preset.teacher, use) != "oracle":
            found[f"teacher.{use}"] = ("oracle", "it knows each step of those problems")
    if data.eft_from == "chain":
        found["data.eft_from"] = ("direct", "pairs that the oracle builds: in an untrained model's "
                                  "tree search there are none to find")  # fmt: skip
    found["data.benchmarks"] = ("[easy,words]", "test sets of the laboratory")
    found["data.benchmark_folder"] = ("data/tiny", "they lie in the repository")
    found["data.split"] = ("dev", "test problems are for confirmation alone")
    return found


def _formats(preset: Preset) -> dict[str, tuple[Any, str]]:
    """float32 where this CPU would be many times slower in bfloat16."""
    if not slow_bfloat16(device_of(preset.model.device)):
        return {}
    swaps = {f"{part}.bf16": "false" for part in ("sft", "dpo", "prm")}
    swaps |= {f"{part}.dtype": "float32" for part in ("model", "engine")}
    return {key: (value, "this CPU has no bfloat16") for key, value in swaps.items()}


def _engine(preset: Preset) -> dict[str, tuple[Any, str]]:
    """What this machine has: `hf` where it lacks the preset's engine, else as many GPUs."""
    kind = preset.engine.kind
    if kind == "server":
        return {"engine.kind": ("hf", "a server has no narrow copy")}
    try:
        opening.check_installed(preset.engine)
    except PSRError:
        return {"engine.kind": ("hf", f"{kind} is not installed here, or not its worker")}
    if kind == "ray" and os.environ.get("RAY_ADDRESS"):
        return {}  # the machines of that cluster are not this one
    return _split(preset)


def _split(preset: Preset) -> dict[str, tuple[Any, str]]:
    """GPUs that hold one model, and workers of Ray that have so many, as they are here."""
    engine, have = preset.engine, requirements.gpus()
    by_vllm = requirements.by_vllm(preset)
    if by_vllm and not have and not requirements.vllm_on_cpu():
        return {"engine.kind": ("hf", f"{engine.kind} needs a GPU for vLLM, and there is none")}
    if not (by_vllm or (engine.kind == "ray" and have)):
        return {}
    heads, most = requirements.heads(preset.model.base), min(engine.tensor_parallel, have)
    split = next((k for k in range(most, 1, -1) if not heads % k), 1)
    workers = min(engine.workers, have // split or engine.workers)
    why = f"{have} GPUs are here"
    found = {"tensor_parallel": split} if most < engine.tensor_parallel else {}
    found |= {"workers": workers} if engine.kind == "ray" and workers < engine.workers else {}
    return {f"engine.{name}": (value, why) for name, value in found.items()}


def _launch(preset: Preset) -> dict[str, tuple[Any, str]]:
    """`single` where the preset's processes cannot be started on this machine."""
    if preset.train.launch == command.SINGLE:
        return {}
    try:
        command.plan(preset.train, preset.model.device, preset.sft.bf16)
    except PSRError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        return {"train.launch": ("single", reason)}
    return {}


def _processes(preset: Preset) -> int:
    """How many will train together where the launch is kept."""
    if preset.train.launch == command.SINGLE:
        return 1
    return command.plan(preset.train, preset.model.device, preset.sft.bf16).processes


def _announced(swaps: dict[str, tuple[Any, str]]) -> list[Row]:
    """What is replaced, sizes in one row."""
    rows = [Row(key, REPLACED, f"{value}: {why}") for key, (value, why) in swaps.items() if why]
    sizes = " ".join(f"{key}={value}" for key, (value, why) in swaps.items() if not why)
    return [*rows, Row("sizes", REPLACED, sizes)]


def _stage(request: Request, key: Key) -> Row:
    """A row for a stage: gone through with these settings, or not.

    What lies there may be an earlier dry run's; its manifest is set aside where a stage failed.
    """
    whole = (request.run.folder(key) / manifest.NAME).is_file()
    if not whole or stages.stage_state(request.run, key, request.preset).word != "current":
        return Row(str(key), WRONG, "was not gone through")
    found = manifest.read(request.run.folder(key)) or {}
    counts = {name: found["counts"].get(name) for name in ("pairs", "updates")}
    counts["tokens written"] = sum(found["tokens"].values())
    made = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
    return Row(str(key), CHECKED, f"gone through in {found['wall_seconds']:.0f} s{made}")


def _left_out(preset: Preset) -> list[Row]:
    """What a dry run cannot tell."""
    rows = [Row("speed, and what a model learns", OPEN, "an untrained narrow copy tells neither")]
    if preset.data.eft_from == "chain":
        rows.append(Row("step PRM and tree search", OPEN, "EFT was built by the oracle instead"))
    return rows
