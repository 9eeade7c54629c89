"""The stages of a run: where each one writes, what it needs first, and whether it is up to date.

    runs/<preset>/seed<S>/base  data            shared by all methods
    runs/<preset>/seed<S>/<method>/M<n>/ppd  model  eval  notebooks
    runs/<preset>/seed<S>/steps  paper            of all methods; several seeds: seeds0-1-2/paper

Controls start from psrlm's M1 and refer to it; they never copy it.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from psr_lib import manifest, prompts
from psr_lib.presets import Preset, suggest
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
    "06_steps": ("model",),
    "08_paper": ("rounds", "prompts", "model", "paper"),
}
BASE, DATA, INIT, SEARCH, DPO, EVALUATE, STEPS, PAPER = STAGES
REPORTS = (STEPS, PAPER)  # they read whatever a run holds, and need nothing
MAIN = "psrlm"
METHODS = {
    MAIN: "the paper's method",
    "random-judge": "control: a coin gives every verdict of the search",
    "gold-judge": "control: the oracle gives every verdict of the search",
    "ift-more": "control: as many updates, on more IFT",
    "sft-chosen": "control: psrlm's pairs, likelihood of the chosen step only",
}
JUDGES = {"random-judge": "random", "gold-judge": "oracle"}  # who judges in the method's search
BORROWED_PAIRS = frozenset({"ift-more", "sft-chosen"})  # they take psrlm's pairs, round by round


class Key(NamedTuple):
    """One stage of one model; method is '' and n is 0 where all methods share it."""

    stage: str
    method: str = ""
    n: int = 0

    def __str__(self) -> str:
        model = f" M{self.n}" if self.stage not in (BASE, DATA, *REPORTS) else ""
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
    def parts(self) -> list["RunDir"]:
        """The runs of single seeds that this one stands for: itself."""
        return [self]

    @property
    def base(self) -> Path:
        """Record of the base model M0."""
        return self.path / "base"

    @property
    def data(self) -> Path:
        """IFT, EFT, the questions of each round."""
        return self.path / "data"

    @property
    def steps(self) -> Path:
        """Number and length of the steps of every answer (notebook 06)."""
        return self.path / "steps"

    @property
    def paper(self) -> Path:
        """Tables and figures of this run (notebook 08)."""
        return self.path / "paper"

    def round(self, method: str, n: int) -> Path:
        """Folder of M[n]; M0 is base/, and every control's M1 is psrlm's."""
        if n == 0:
            return self.base
        return self.path / (MAIN if n == 1 else method) / f"M{n}"

    def model(self, method: str, n: int) -> Path:
        """Weights and tokenizer of M[n], n >= 1."""
        return self.round(method, n) / "model"

    def ppd(self, method: str, n: int) -> Path:
        """Pairs that M[n] is trained on, made by M[n-1], n >= 2."""
        return self.round(MAIN if method in BORROWED_PAIRS else method, n) / "ppd"

    def eval(self, method: str, n: int) -> Path:
        """Answers and scores of M[n]."""
        return self.round(method, n) / "eval"

    def folder(self, key: Key) -> Path:
        """Where a stage writes."""
        places = {INIT: self.model, SEARCH: self.ppd, DPO: self.model, EVALUATE: self.eval}
        if key.stage in places:
            return places[key.stage](key.method, key.n)
        shared = {BASE: self.base, DATA: self.data, STEPS: self.steps, PAPER: self.paper}
        return shared[key.stage]

    def notebook(self, key: Key) -> Path:
        """Where a stage's executed notebook is kept."""
        own = key.stage in (DATA, *REPORTS)
        home = self.folder(key) if own else self.round(key.method, key.n)
        return home / "notebooks" / f"{key.stage}.ipynb"


@dataclass(frozen=True)
class SeedsDir(RunDir):
    """Several seeds of a preset together: where their common tables and figures go."""

    seeds: tuple[int, ...] = ()

    @property
    def path(self) -> Path:
        """The folder beside those of its seeds."""
        name = "seeds" + "-".join(map(str, self.seeds))
        return manifest.root() / self.root / self.preset / name

    @property
    def parts(self) -> list[RunDir]:
        """The run of each seed."""
        return [RunDir(self.preset, seed, self.root) for seed in self.seeds]


FIRST = [Key(EVALUATE), Key(EVALUATE, MAIN, 1)]  # built for a report that is opened by hand


def run_of(preset: str, seed: int, root: str | Path, seeds: str = "") -> RunDir:
    """The run of a seed or, where `seeds` names several ("0 1 2"), of all of them together.

    Raises PSRError where one is no whole number.
    """
    numbers = seeds.replace(",", " ").split()
    if wrong := [number for number in numbers if not number.isdecimal()]:
        raise PSRError(f"seeds {seeds!r}: {wrong[0]!r} is no whole number; write seeds as 0 1 2")
    several = tuple(dict.fromkeys(map(int, numbers)))
    if len(several) > 1:
        return SeedsDir(preset, several[0], root, several)
    return RunDir(preset, several[0] if several else seed, root)


def make_key(stage: str, method: str, n: int, rounds: int) -> Key:
    """The key of a stage as notebooks and make name it; raises PSRError on a bad name or round."""
    if stage not in STAGES:
        raise PSRError(f"stage {stage!r} is unknown; {suggest(stage, STAGES)}")
    if method not in METHODS:
        raise PSRError(f"method {method!r} is unknown; {suggest(method, METHODS)}")
    if stage in (BASE, DATA, *REPORTS):
        return Key(stage)
    low = {INIT: 1, SEARCH: 2, DPO: 2, EVALUATE: 0}[stage]
    high = 1 if stage == INIT else rounds
    if not low <= n <= high:
        wanted = f"{low} to {high}" if low < high else str(low)
        raise PSRError(f"{stage}: there is no M{n} here; take iteration {wanted}")
    if stage == SEARCH and method in BORROWED_PAIRS:
        raise PSRError(f"{stage}: {method} makes no pairs, it takes those of {MAIN}; search {MAIN}")
    return Key(stage, method if n > 1 else MAIN if n else "", n)


def model_key(method: str, n: int) -> Key:
    """The stage that makes M[n]."""
    if n <= 1:
        return Key(INIT, MAIN, 1) if n else Key(BASE)
    return Key(DPO, method, n)


def pairs_key(method: str, n: int) -> Key:
    """The stage that makes the pairs that M[n] of this method is trained on."""
    return Key(SEARCH, MAIN if method in BORROWED_PAIRS else method, n)


def round_keys(method: str, n: int) -> list[Key]:
    """The stages of round n, evaluation last."""
    if n == 1:
        return [Key(DATA), Key(INIT, MAIN, 1), Key(EVALUATE, MAIN, 1)]
    search = [] if method in BORROWED_PAIRS else [Key(SEARCH, method, n)]
    return [*search, Key(DPO, method, n), Key(EVALUATE, method, n)]


def needs(key: Key) -> list[Key]:
    """The stages that must be complete before this one."""
    if key.stage in (BASE, DATA, *REPORTS):
        return [Key(BASE)] if key.stage == DATA else []
    if key.stage == INIT:
        return [Key(BASE), Key(DATA)]
    model = model_key(key.method, key.n - (key.stage != EVALUATE))
    return [Key(DATA), model, *([pairs_key(key.method, key.n)] if key.stage == DPO else [])]


def in_order(targets: Iterable[Key]) -> list[Key]:
    """The targets with all that they need, each once, in an order in which they can run."""
    found: dict[Key, None] = {}
    for target in targets:
        for key in [*in_order(needs(target)), target]:
            found.setdefault(key)
    return list(found)


def stage_preset(preset: Preset, key: Key) -> Preset:
    """The preset as the stage sees it: a control's search has its own judge."""
    if key.stage != SEARCH or key.method not in JUDGES:
        return preset
    return replace(preset, judge=replace(preset.judge, kind=JUDGES[key.method]))


def parameters(preset: Preset, key: Key, seed: int) -> dict[str, Any]:
    """All parameters that the stage's result depends on; their hash decides whether it is stale."""
    found = stage_preset(preset, key).sections(*STAGES[key.stage])
    found["templates"] = prompts.load(preset.prompts).hashes
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
        _new_inputs(run, key, found["inputs"]),
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
