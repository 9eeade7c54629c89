"""Where the stages of a run write.

    runs/<preset>/seed<S>/base  data            shared by all methods
    runs/<preset>/seed<S>/<method>/M<n>/ppd  model  eval  judge  notebooks
    runs/<preset>/seed<S>/steps  paper            of all methods; several seeds: seeds0-1-2/paper

Controls start from psrlm's M1 and refer to it; they never copy it. The baseline srlm has an EFT, in
srlm/data, and an M1 of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from psr_lib import manifest
from psr_lib.methods import (
    BASE,
    BORROWED_PAIRS,
    DATA,
    DPO,
    EVALUATE,
    INIT,
    LAB,
    MAIN,
    PAPER,
    REFERENCE,
    REPORTS,
    SEARCH,
    STEPS,
    starter,
)
from psr_lib.records import PSRError


class Key(NamedTuple):
    """One stage of one model; method is '' and n is 0 where all methods share it."""

    stage: str
    method: str = ""
    n: int = 0

    def __str__(self) -> str:
        shared = self.stage in (BASE, DATA, *REPORTS) or self.method == REFERENCE
        model = "" if shared else f" M{self.n}"
        return self.stage + (f" {self.method}" if self.method not in ("", MAIN) else "") + model


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
    def making(self) -> Path:
        """What takes long on the way to EFT (step PRM, policy, trees); FORCE=1 makes it again."""
        return self.path / "making"

    @property
    def paid(self) -> Path:
        """Answers that were paid for, beside the runs, which they outlive: nothing deletes them."""
        return manifest.root() / self.root / "paid"

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
        shared = {BASE: self.base, STEPS: self.steps, PAPER: self.paper}
        return shared.get(key.stage, self.path / key.method / "data")

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
