"""The stages of a run: where each one writes, what it needs first, and whether it is up to date.

    runs/<preset>/seed<S>/base  data            shared by all methods
    runs/<preset>/seed<S>/<method>/M<n>/ppd  model  eval  notebooks

Controls start from psrlm's M1 and refer to it; they never copy it. The baseline srlm has an EFT, in
srlm/data, and an M1 of its own.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from psr_lib import manifest, prompts
from psr_lib.presets import PROCEDURAL, Preset, suggest
from psr_lib.records import PSRError, hash_json

# Sections of the preset that a stage may read. Its parameters' hash is made from these alone, so
# another evaluation setting never retrains a model.
STAGES = {
    "00_base_model": ("prompts", "model"),
    "01_data_prep": ("prompts", "rounds", "data"),
    "02_init": ("prompts", "model", "sft"),
    "03_search_judge": ("prompts", "model", "search", "judge", "engine"),
    "04_step_dpo": ("prompts", "model", "dpo"),
    "05_evaluate": ("prompts", "model", "data", "search", "judge", "eval", "engine"),
    "07_judge_lab": ("prompts", "model", "data", "search", "judge", "eval", "engine", "lab"),
}
BASE, DATA, INIT, SEARCH, DPO, EVALUATE, LAB = STAGES
FORCED = "forced"  # a file in a run's folder `making`: this run takes nothing that ships
# What 01 reads more: to cut other people's solutions into steps, and to make EFT as the paper does.
TEACHER = ("teacher",)
CHAIN = ("model", "sft", "prm", "tree", "annotate", "engine")
MAIN, SRLM, REFERENCE = "psrlm", "srlm", "reference"
# The baseline scores solutions where the others judge steps, and has an EFT of its own.
SRLM_STAGES = {
    DATA: ("prompts", "data", "srlm"),
    SEARCH: ("prompts", "model", "search", "srlm", "engine"),
    EVALUATE: ("prompts", "model", "data", "srlm", "eval", "engine"),
    LAB: ("prompts", "model", "data", "search", "srlm", "eval", "engine", "lab"),
}
METHODS = {
    MAIN: "the paper's method",
    SRLM: "baseline: whole solutions that the model scores itself (Yuan et al.)",
    "random-judge": "control: a coin gives every verdict of the search",
    "random-judge-nll0": "control: a coin's verdicts, and DPO without the anchor (nll_weight 0)",
    "gold-judge": "upper bound, uses gold: the oracle gives every verdict of the search",
    "ift-more": "control: as many updates, on more IFT",
    "sft-chosen": "control: psrlm's pairs, likelihood of the chosen step only",
    REFERENCE: "an API model, evaluated beside the run's own",
}
# What a method changes of the preset, stage by stage; it is all that parts it from psrlm.
SWITCHES = {
    "random-judge": {SEARCH: {"judge": {"kind": "random"}}},
    "random-judge-nll0": {SEARCH: {"judge": {"kind": "random"}}, DPO: {"dpo": {"nll_weight": 0.0}}},
    "gold-judge": {SEARCH: {"judge": {"kind": "oracle"}}},
}
BORROWED_PAIRS = frozenset({"ift-more", "sft-chosen"})  # they take psrlm's pairs, round by round


class Key(NamedTuple):
    """One stage of one model; method is '' and n is 0 where all methods share it."""

    stage: str
    method: str = ""
    n: int = 0

    def __str__(self) -> str:
        model = f" M{self.n}" if self.stage not in (BASE, DATA) and self.method != REFERENCE else ""
        return self.stage + (f" {self.method}" if self.method not in ("", MAIN) else "") + model


class State(NamedTuple):
    """`current`, `missing`, `stale` or `damaged`, and why."""

    word: str
    reason: str = ""


@dataclass(frozen=True)
class RunDir:
    """Folders of one preset and seed."""

    preset: str
    seed: int = 0
    root: str | Path = "runs"

    @property
    def path(self) -> Path:
        """The run's folder; a relative root lies in the repository, wherever the caller stands."""
        return manifest.root() / self.root / self.preset / f"seed{self.seed}"

    @property
    def base(self) -> Path:
        """Record of the base model M0."""
        return self.path / "base"

    @property
    def data(self) -> Path:
        """IFT, EFT, the questions of each round."""
        return self.path / "data"

    @property
    def making(self) -> Path:
        """What takes long on the way to EFT (step PRM, policy, trees); FORCE=1 makes it again."""
        return self.path / "making"

    @property
    def paid(self) -> Path:
        """Answers that were paid for, beside the runs, which they outlive: nothing deletes them."""
        return manifest.root() / self.root / "paid"

    @property
    def paper(self) -> Path:
        """Tables and figures of this run."""
        return self.path / "paper"

    def round(self, method: str, n: int) -> Path:
        """Folder of M[n]; M0 is base/, and every control's M1 is psrlm's."""
        if method == REFERENCE:
            return self.path / REFERENCE
        if n == 0:
            return self.base
        return self.path / (starter(method) if n == 1 else method) / f"M{n}"

    def model(self, method: str, n: int) -> Path:
        """Weights and tokenizer of M[n], n >= 1."""
        return self.round(method, n) / "model"

    def ppd(self, method: str, n: int) -> Path:
        """Pairs that M[n] is trained on, made by M[n-1], n >= 2."""
        return self.round(MAIN if method in BORROWED_PAIRS else method, n) / "ppd"

    def eval(self, method: str, n: int) -> Path:
        """Answers and scores of M[n]."""
        return self.round(method, n) / "eval"

    def lab(self, method: str, n: int) -> Path:
        """What the judge laboratory found about M[n] as a judge, those before it beside."""
        return self.round(method, n) / "judge"

    def folder(self, key: Key) -> Path:
        """Where a stage writes."""
        places = {INIT: self.model, SEARCH: self.ppd, DPO: self.model, EVALUATE: self.eval,
                  LAB: self.lab}  # fmt: skip
        if key.stage in places:
            return places[key.stage](key.method, key.n)
        return self.base if key.stage == BASE else self.path / key.method / "data"

    def notebook(self, key: Key) -> Path:
        """Where a stage's executed notebook is kept."""
        home = self.folder(key) if key.stage == DATA else self.round(key.method, key.n)
        return home / "notebooks" / f"{key.stage}.ipynb"


def starter(method: str) -> str:
    """The method whose M1 this one starts from."""
    return SRLM if method == SRLM else MAIN


def make_key(stage: str, method: str, n: int, rounds: int) -> Key:
    """The key of a stage as notebooks and make name it; raises PSRError on a bad name or round."""
    if stage not in STAGES:
        raise PSRError(f"stage {stage!r} is unknown; {suggest(stage, STAGES)}")
    if method not in METHODS:
        raise PSRError(f"method {method!r} is unknown; {suggest(method, METHODS)}")
    if stage in (BASE, DATA):
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
    if key.stage in (BASE, DATA):
        return [] if key.stage == BASE else [Key(DATA)] if key.method else [Key(BASE)]
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
    server = {"url": own.url, "model": own.model, "protocol": own.protocol, "seeds": own.seeds}
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
        return SRLM_STAGES.get(key.stage, STAGES[key.stage])
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


def code_of(key: Key) -> dict[str, str]:
    """Hashes of the stage's notebook and of the library files that it imports."""
    return manifest.code_hashes(notebook_of(key), Path(__file__).parent)


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
        _code_changes(found["code"], code_of(key)),
        _input_changes(run, found["inputs"]),
    ):
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            return State("stale", ", ".join(changes[:3]) + more)
    wrong = manifest.damage(folder, found)
    return State("damaged", f"{manifest.shown(folder)}/{wrong}") if wrong else State("current")


def _code_changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [f"{name} changed" for name in {**new, **old} if old.get(name) != new.get(name)]


def _input_changes(run: RunDir, inputs: dict[str, Any]) -> list[str]:
    return [f"{name} changed" for name, entry in inputs.items() if not _same(run, name, entry)]


def _same(run: RunDir, name: str, entry: dict[str, Any]) -> bool:
    path = input_path(run, name)
    return path is None or (path.exists() and manifest.fingerprint(path) == entry["hash"])


def input_name(run: RunDir, path: Path) -> str:
    """An input as manifests name it, so that a run may be moved with its repository."""
    for label, folder in (("run", run.path), ("repository", manifest.root())):
        if path.is_relative_to(folder):
            return f"{label}:{path.relative_to(folder).as_posix()}"
    return f"path:{path}"


def input_path(run: RunDir, name: str) -> Path | None:
    """Where a named input lies; None for a model of the hub, which its name identifies."""
    label, _, rest = name.partition(":")
    folder = {"run": run.path, "repository": manifest.root(), "path": Path("/")}.get(label)
    return None if folder is None else folder / rest


def params_hash(params: dict[str, Any]) -> str:
    """sha256 of a stage's parameters."""
    return hash_json(params)


_held: dict[Path, int] = {}  # locks of this process, so that a notebook can open its stage again


@contextmanager
def locked(run: RunDir, doing: str) -> Iterator[None]:
    """Hold the run's folder, so that two makes never write into it at once."""
    lock(run, doing)
    try:
        yield
    finally:
        unlock(run)


def lock(run: RunDir, doing: str) -> None:
    """Take the run's lock until `unlock` or the end of the process; PSRError if it is taken."""
    path = run.path / ".lock"
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(handle)
        place = manifest.shown(run.path)
        raise PSRError(f"{place} is in use by {owner}; wait until it ends, or stop it") from None
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} ({doing})".encode())
    _held[path] = handle


def unlock(run: RunDir) -> None:
    """Give the run's lock back; nothing happens if this process does not hold it."""
    handle = _held.pop(run.path / ".lock", None)
    if handle is not None:
        os.ftruncate(handle, 0)
        os.close(handle)
