"""What can be found out about a preset on this machine before anything runs: files, devices, sizes.

Each check is a row: what was looked at, how it stands, and the detail. `wrong` would end a run,
`warning` says that this machine cannot hold it, `not checked` is what only a real run can tell.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from psr_lib import (
    architectures,
    asking,
    base_weights,
    machines,
    manifest,
    plan,
    requirements,
    sources,
    symbolic,
)
from psr_lib.engines import opening
from psr_lib.engines.http_json import KEY
from psr_lib.launch import command
from psr_lib.models import check_dtype, device_of
from psr_lib.presets import PROCEDURAL, Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir

CHECKED, REPLACED, OPEN = "checked", "replaced", "not checked"
WRONG, WARNING = "wrong", "warning"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    state: str
    detail: str


def look(preset: Preset, run: RunDir, keys: list[Key]) -> list[Row]:
    """Every check of a preset for the stages of a run; nothing is loaded and nothing written."""
    checks: list[Callable[[], Iterator[Row]]] = [
        lambda: _models(preset), lambda: _files(preset), lambda: _dtype(preset),
        lambda: _engine(preset, run, keys), lambda: _training(preset),
        lambda: _sizes(preset, run, keys), lambda: _api(preset, keys),
    ]  # fmt: skip
    return [row for check in checks for row in check()]


def _models(preset: Preset) -> Iterator[Row]:
    for base in requirements.bases(preset):
        try:
            found = architectures.of(base)
        except PSRError as error:
            yield Row(base, WRONG, str(error))
            continue
        detail = f"{found.parameters:,} parameters, configuration from {found.source}"
        yield Row(base, CHECKED, detail)
        local = (manifest.root() / Path(base).expanduser()).exists()
        if not local and base_weights.is_hub_id(base):
            yield Row(f"{base}, weights", OPEN, "on the hub, which was not asked")


def _files(preset: Preset) -> Iterator[Row]:
    """Files and folders that settings name, and what of the hub they name."""
    data, prm = preset.data, preset.prm
    named = [("data.source", part) for part in data.source.split("+")]
    named += [("data.benchmark_folder", data.benchmark_folder), ("prm.model", prm.model)]
    named += [("prm.labels", prm.labels)] if data.eft_from == "chain" else []
    named += [("lab.audit", path) for path in preset.lab.audit]
    for setting, name in named:
        if name in ("", PROCEDURAL, symbolic.NAME, "oracle", "rule"):
            continue
        if (manifest.root() / Path(name).expanduser()).exists():
            yield Row(setting, CHECKED, f"{name} is there")
        elif name in ("hub", *sources.KNOWN) or base_weights.is_hub_id(name):
            yield Row(setting, OPEN, f"{name}: on the hub, which was not asked")
        else:
            yield Row(setting, WRONG, f"{name}: no such file or folder; correct it in the preset")


def _dtype(preset: Preset) -> Iterator[Row]:
    trained = ("sft", "dpo", *(["prm"] if preset.data.eft_from == "chain" else []))
    bf16 = any(getattr(preset, section).bf16 for section in trained)
    state = WRONG
    try:
        device = device_of(preset.model.device)
        for dtype in (preset.model.dtype, *(["bfloat16"] if bf16 else [])):
            check_dtype(dtype, device)
        state = WARNING  # a run would stop, but a dry run is for another machine
        requirements.check_speed(preset, True, trained)
    except PSRError as error:
        yield Row("number formats", state, str(error))
        return
    yield Row("number formats", CHECKED, f"{preset.model.dtype} on {device.type}")


def _engine(preset: Preset, run: RunDir, keys: list[Key]) -> Iterator[Row]:
    """Whether the engine can do what is asked, is installed, and the model's heads divide."""
    engine = preset.engine
    try:
        requirements.check_chain(preset, run, keys)
    except PSRError as error:
        yield Row("data.eft_from=chain", WRONG, str(error))
    try:
        opening.check_installed(engine)
        yield Row(f"engine.kind={engine.kind}", CHECKED, "installed")
    except PSRError as error:
        yield Row(f"engine.kind={engine.kind}", OPEN, str(error))
    if not requirements.by_vllm(preset):
        return
    split, gpus = engine.tensor_parallel, requirements.gpus()
    for base in requirements.bases(preset):
        if heads := requirements.heads(base):
            state = WRONG if heads % split else CHECKED
            yield Row(f"{base}, heads", state, f"{heads} heads over tensor_parallel={split}")
    if gpus < split:
        yield Row("engine.tensor_parallel", WARNING, f"{split} GPUs are asked for, {gpus} are here")


def _training(preset: Preset) -> Iterator[Row]:
    """The launch: its configuration, its machines, and whether batches divide over processes."""
    how = preset.train
    if how.launch == "single":
        yield Row("train.launch=single", CHECKED, "one process, one device")
        return
    name = f"train.launch={how.launch}"
    try:
        path, _ = command.read_config(how.launch)
        yield Row(name, CHECKED, f"accelerate reads {manifest.shown(path)}")
        slots = command.read_machines(how.machines)[1] if how.machines else 0
    except PSRError as error:
        yield Row(name, WRONG, str(error))
        return
    count = how.processes or slots
    if not count:
        yield Row("train.processes", OPEN, "as many as there will be GPUs; batches must divide")
    batches = {name: getattr(preset, name).batch for name in ("sft", "dpo", "prm")}
    wrong = [f"{name}.batch={batch}" for name, batch in batches.items() if count and batch % count]
    if wrong:
        yield Row("batches", WRONG, f"{', '.join(wrong)} does not divide over {count} processes")
    elif count:
        yield Row("batches", CHECKED, f"divide over {count} processes")


def _sizes(preset: Preset, run: RunDir, keys: list[Key]) -> Iterator[Row]:
    """Memory and disk of the real run, as `make plan` has them."""
    try:
        found = plan.make(preset, run, keys, machines.at_hand())
    except PSRError as error:
        yield Row("memory and disk", WRONG, str(error))
        return
    yield Row("disk", CHECKED, plan.disk_lines(found, run)[0])
    for warning in plan.warning_lines(found, run):
        yield Row("memory and disk", WARNING, warning.removeprefix("warning: "))


def _api(preset: Preset, keys: list[Key]) -> Iterator[Row]:
    asked = dict.fromkeys(asking.SETTINGS[use] for use in asking.uses(preset, keys))
    if not asked:
        return
    there = "is set, and was not used" if os.environ.get(KEY) else "is not set"
    detail = f"{preset.teacher.model} at {preset.teacher.url}; {KEY} {there}"
    yield Row(" and ".join(asked), OPEN, detail)


def table(rows: list[Row]) -> str:
    """The rows as aligned text, detail last."""
    widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
    return "\n".join(f"{w:<{widths[0]}}  {s:<{widths[1]}}  {d}".rstrip() for w, s, d in rows)


def failed(rows: list[Row]) -> list[Any]:
    """The rows that would end a run."""
    return [row for row in rows if row.state == WRONG]
