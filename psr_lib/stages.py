"""The stages of a run: what each needs first, what it depends on, and whether it is up to date."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from psr_lib import manifest, notebook_runner, presets, prompts, registry
from psr_lib.methods import (
    BASE,
    BORROWED_PAIRS,
    DATA,
    DPO,
    EVALUATE,
    INIT,
    LAB,
    MAIN,
    METHODS,
    REFERENCE,
    REPORTS,
    SEARCH,
    SRLM,
    SRLM_STAGES,
    STAGES,
    SWITCHES,
    starter,
)
from psr_lib.presets import PROCEDURAL, Preset, suggest
from psr_lib.records import PSRError, hash_json
from psr_lib.run_dirs import Key, RunDir, input_name, input_path

FORCED = "forced"  # a file in a run's folder `making`: this run takes nothing that ships
# What 01 reads more: to cut other people's solutions into steps, and to make EFT as the paper does.
TEACHER = ("teacher",)
CHAIN = ("model", "sft", "prm", "tree", "annotate", "engine")
SCORED = ("teacher", "model", "sft", "tree", "engine")  # the same under `srlm`
FIRST = [Key(EVALUATE), Key(EVALUATE, MAIN, 1)]  # built for a report that is opened by hand


class State(NamedTuple):
    """`current`, `missing`, `stale` or `damaged`, and why."""

    word: str
    reason: str = ""


def make_key(stage: str, method: str, n: int, rounds: int) -> Key:
    """The key of a stage as notebooks and make name it; raises PSRError on a bad name or round."""
    if stage not in STAGES:
        raise PSRError(f"stage {stage!r} is unknown; {suggest(stage, STAGES)}")
    if method not in METHODS:
        raise PSRError(f"method {method!r} is unknown; {suggest(method, METHODS)}")
    if stage in (BASE, DATA, *REPORTS):
        return data_keys(method)[-1] if stage == DATA else Key(stage)
    if method == REFERENCE:
        return _reference_key(stage)
    low = {INIT: 1, SEARCH: 2, DPO: 2, EVALUATE: 0, LAB: 0}[stage]
    high = 1 if stage == INIT else rounds
    if not low <= n <= high:
        wanted = f"{low} to {high}" if low < high else str(low)
        raise PSRError(f"{stage}: there is no M{n} here; take iteration {wanted}")
    if stage == SEARCH and method in BORROWED_PAIRS:
        raise PSRError(f"{stage}: {method} makes no pairs, it takes those of {MAIN}; search {MAIN}")
    return Key(stage, method if n > 1 else starter(method) if n else "", n)


def data_keys(method: str) -> list[Key]:
    """The stages that make a method's data: what all share, then what is its own."""
    return [Key(DATA), Key(DATA, SRLM)] if method == SRLM else [Key(DATA)]


def _reference_key(stage: str) -> Key:
    if stage not in (EVALUATE, LAB):
        raise PSRError(f"{stage}: {REFERENCE} is not trained here; make evaluate or make judge")
    return Key(stage, REFERENCE)


def model_key(method: str, n: int) -> Key:
    """The stage that makes M[n]."""
    if n <= 1:
        return Key(INIT, starter(method), 1) if n else Key(BASE)
    return Key(DPO, method, n)


def pairs_key(method: str, n: int) -> Key:
    """The stage that makes the pairs that M[n] of this method is trained on."""
    return Key(SEARCH, MAIN if method in BORROWED_PAIRS else method, n)


def round_keys(method: str, n: int) -> list[Key]:
    """The stages of round n, evaluation last."""
    if n == 1:
        first = starter(method)
        return [*data_keys(method), Key(INIT, first, 1), Key(EVALUATE, first, 1)]
    search = [] if method in BORROWED_PAIRS else [Key(SEARCH, method, n)]
    return [*search, Key(DPO, method, n), Key(EVALUATE, method, n)]


def needs(key: Key) -> list[Key]:
    """The stages that must be complete before this one."""
    if key.stage in (BASE, *REPORTS):
        return []
    if key.stage == DATA:
        return [Key(DATA)] if key.method else [Key(BASE)]
    data = data_keys(key.method)
    if key.stage == INIT:
        return [Key(BASE), *data]
    if key.stage == LAB:
        return [*data, *_before_lab(key)]
    return [*data, model_key(key.method, key.n - (key.stage != EVALUATE)), *_pairs_before(key)]


def _pairs_before(key: Key) -> list[Key]:
    """DPO takes pairs; the baseline's search takes the tokens that psrlm's has spent."""
    if key.stage == SEARCH and key.method == SRLM:
        return [pairs_key(MAIN, key.n)]
    return [pairs_key(key.method, key.n)] if key.stage == DPO else []


def _before_lab(key: Key) -> list[Key]:
    """M[n]'s evaluation, the search that M[n-1] steered, and what was found about M[n-1]."""
    if key.method == REFERENCE:
        return [Key(EVALUATE, REFERENCE)]
    found = [Key(EVALUATE, key.method, key.n)]
    found += [make_key(LAB, key.method, key.n - 1, key.n)] if key.n else []
    return found + ([Key(SEARCH, key.method, key.n)] if steered(key.method, key.n) else [])


def steered(method: str, n: int) -> bool:
    """Whether M[n-1] itself judged steps in the search that made the pairs of M[n]."""
    another = "judge" in SWITCHES.get(method, {}).get(SEARCH, {})
    return n > 1 and not another and method != SRLM and method not in BORROWED_PAIRS


def in_order(targets: Iterable[Key]) -> list[Key]:
    """The targets with all that they need, each once, in an order in which they can run."""
    found: dict[Key, None] = {}
    for target in targets:
        for key in [*in_order(needs(target)), target]:
            found.setdefault(key)
    return list(found)


def stage_preset(preset: Preset, key: Key) -> Preset:
    """The preset as the stage sees it: with what the method switches in this stage."""
    if key.method == REFERENCE:
        return _reference_preset(preset)
    switched = SWITCHES.get(key.method, {}).get(key.stage, {})
    changed = {name: replace(getattr(preset, name), **new) for name, new in switched.items()}
    return replace(preset, **changed)


def _reference_preset(preset: Preset) -> Preset:
    """The preset with the API model's server, prompts and limits; it does not search."""
    own, most = preset.reference, preset.reference.max_tokens
    server: Any = {name: getattr(own, name) for name in ("url", "model", "protocol", "seeds")}
    return replace(
        preset, prompts=own.prompts, engine=replace(preset.engine, kind="server", **server),
        judge=replace(preset.judge, max_tokens=most, verdict="written"),
        srlm=replace(preset.srlm, max_score_tokens=most),
        eval=replace(preset.eval, max_tokens=most, search_rounds=(), own_prompts="", judge_shots=0),
    )  # fmt: skip


def make_anew(run: RunDir) -> None:
    """Forget what took long on the way to EFT, and from now on take none that ships."""
    shutil.rmtree(run.making, ignore_errors=True)
    run.making.mkdir(parents=True)
    (run.making / FORCED).touch()


def sections(preset: Preset, key: Key) -> tuple[str, ...]:
    """The sections that a stage may read: 01's depend on where problems and EFT come from."""
    if key.method == SRLM:
        chain = key.stage == DATA and preset.data.eft_from == "chain"
        return SRLM_STAGES.get(key.stage, STAGES[key.stage]) + (SCORED if chain else ())
    if key.method == REFERENCE and key.stage == LAB:
        return (*STAGES[LAB], "srlm")  # it judges pairs of steps and scores whole solutions
    chain = key.stage == DATA and preset.data.eft_from == "chain"
    taught = chain or (key.stage == DATA and preset.data.source != PROCEDURAL)
    return STAGES[key.stage] + (TEACHER if taught else ()) + (CHAIN if chain else ())


def parameters(preset: Preset, key: Key, seed: int) -> dict[str, Any]:
    """All parameters that the stage's result depends on; their hash decides whether it is stale."""
    preset = stage_preset(preset, key)
    found = preset.sections(*sections(preset, key))
    found["templates"] = prompts.load(preset.prompts).hashes
    if key.stage == EVALUATE and preset.eval.own_prompts:
        found["own_templates"] = prompts.load(preset.eval.own_prompts).hashes
    return {"method": key.method, "iteration": key.n, "seed": seed, **found}


def notebook_of(key: Key) -> Path:
    """The stage's notebook."""
    return manifest.root() / "notebooks" / f"{key.stage}.ipynb"


def code_of(key: Key, preset: Preset) -> dict[str, str]:
    """Hashes of the stage's notebook, of the library files that it imports, and of extensions."""
    return manifest.code_hashes(notebook_of(key), Path(__file__).parent) | extensions(preset, key)


def extensions(preset: Preset, key: Key) -> dict[str, str]:
    """Hashes of the files from outside that registered what the stage's sections name.

    Who judges pairs and who scores solutions have one name, and either may change without the
    other's stage.
    """
    preset, found = stage_preset(preset, key), {}
    unread = "teacher" if key.method == SRLM else "scorer"
    for section in sections(preset, key):
        for kind, name in presets.registered(getattr(preset, section)):
            if kind != unread and (file := registry.origin(kind, name)):
                found[f"extension {file.name}"] = manifest.fingerprint(file)
    return found


def stage_state(run: RunDir, key: Key, preset: Preset) -> State:
    """Whether the stage must run, and why: parameters, code, inputs, then outputs are compared."""
    folder = run.folder(key)
    try:
        found = manifest.read(folder)
    except PSRError as error:
        return State("damaged", str(error))
    if found is None:
        return State("missing", "no complete result yet")
    for changes in (
        manifest.differences(found["params"], parameters(preset, key, run.seed)),
        _code_changes(found["code"], code_of(key, preset)),
        _input_changes(run, found["inputs"]),
        _new_inputs(run, key, found["inputs"]),
    ):
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            return State("stale", ", ".join(changes[:3]) + more)
    if wrong := manifest.damage(folder, found):
        return State("damaged", f"{manifest.shown(folder)}/{wrong}")
    if _half_recorded(run, key, found):
        return State("stale", "its executed notebook was cut short")
    return State("current")


def _half_recorded(run: RunDir, key: Key, found: dict[str, Any]) -> bool:
    """Whether the runner was killed after the stage had finished, but its notebook had not."""
    by_runner = not found.get("by_hand") and (run.folder(key) / manifest.NAME).is_file()
    return by_runner and notebook_runner.cut_short(run.notebook(key))


def _code_changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [f"{name} changed" for name in {**new, **old} if old.get(name) != new.get(name)]


def _input_changes(run: RunDir, inputs: dict[str, Any]) -> list[str]:
    return [f"{name} changed" for name, entry in inputs.items() if not _same(run, name, entry)]


def _new_inputs(run: RunDir, key: Key, inputs: dict[str, Any]) -> list[str]:
    """What a report would read now and did not read then."""
    names = (input_name(run, path) for path in holdings(run, key)) if key.stage in REPORTS else ()
    return [f"{name} is new" for name in names if name not in inputs]


def holdings(run: RunDir, report: Key) -> list[Path]:
    """Manifests of all that a report may read: everything in its runs that is no later report."""
    last = REPORTS.index(report.stage)
    made = (path for part in run.parts for path in sorted(part.path.rglob(manifest.NAME)))
    skip = [part.folder(Key(name)) for part in (run, *run.parts) for name in REPORTS[last:]]
    return [path for path in made if not any(path.is_relative_to(folder) for folder in skip)]


def _same(run: RunDir, name: str, entry: dict[str, Any]) -> bool:
    path = input_path(run, name)
    return path is None or (path.exists() and manifest.fingerprint(path) == entry["hash"])


def params_hash(params: dict[str, Any]) -> str:
    """sha256 of a stage's parameters."""
    return hash_json(params)
