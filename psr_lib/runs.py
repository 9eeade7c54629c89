"""What a stage notebook needs of its run: `open_stage`, and the command line behind make.

    stage = runs.open_stage("03_search_judge", preset=preset, method=method, iteration=iteration,
                            seed=seed, runs_dir=runs_dir, overrides=overrides)
    rows = read_jsonl(stage.input("data/questions_2.jsonl"))
    write_jsonl(stage.output("ppd.jsonl"), pairs)
    stage.finish()

Opened by hand in JupyterLab, a stage first builds what is missing before it, through the same
runner that make uses.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from psr_lib import (
    building,
    integrity,
    lineage,
    locks,
    manifest,
    methods,
    presets,
    run_dirs,
    stages,
)
from psr_lib.notebook_runner import RUNNING
from psr_lib.records import PSRError, write_json
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import State, stage_state

__all__ = ["Key", "RunDir", "Stage", "State", "open_stage", "stage_state"]
DATA_SETS = "hub:datasets/"  # before the name of one, which a model may bear too
WHERE = ("train",)  # where a stage computes, which is no part of what it makes
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


class _Plain(yaml.SafeDumper):
    """YAML for the eye: a text with line breaks stays on its line, as "\\n\\n"."""


_Plain.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style='"' if "\n" in text else None))  # fmt: skip


class SectionView:
    """The preset as one stage may read it: a section it does not declare is an error.

    What a stage reads without declaring it would be missing from its parameters' hash, and a
    changed value would then leave an old result in place.
    """

    def __init__(self, preset: presets.Preset, key: Key) -> None:
        self._preset, self._key = preset, key

    def __repr__(self) -> str:
        values = self._preset.sections("name", *stages.sections(self._preset, self._key))
        text = yaml.dump(values, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=100)
        return text.rstrip()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._preset, name)
        if name not in ("name", *WHERE, *stages.sections(self._preset, self._key)):
            raise PSRError(f"{self._key} does not declare preset section {name!r}; see stages.py")
        return value


class Stage:
    """An open stage: its preset and folder, the inputs it read, the outputs it will write."""

    def __init__(self, run: RunDir, key: Key, method: str, preset: presets.Preset) -> None:
        self.run, self.key, self.method, self.iteration = run, key, method, key.n
        self.seed = run.seed
        self.preset: Any = SectionView(stages.stage_preset(preset, key), key)
        self.folder = run.folder(key)
        self.params = stages.parameters(preset, key, run.seed)
        self.code = stages.code_of(key, preset)
        self._inputs: dict[str, Any] = {}
        self._declared: list[Path] = []
        self._scratch: list[Path] = []
        self.counts: dict[str, Any] = {}
        self._tokens = {"generated": 0, "judged": 0}
        self._started, self._began = time.time(), time.monotonic()  # clocks may be set back
        self._before = _file_states(self.folder)
        self._git = manifest.git_state()  # of the code that runs, whatever is committed meanwhile

    def input(self, name: str) -> Path:
        """A file of this run, such as 'data/ift.jsonl', verified against its stage's manifest."""
        path = self.run.path / name
        integrity.check(self.run, path)
        return self._record(path)

    def holding(self, path: Path) -> Path:
        """A file of this run or of one of its seeds, verified as by `input`; for reports."""
        integrity.check(self.run, path)
        return self._record(path)

    def holdings(self) -> list[Path]:
        """Manifests of all that this report may read, each noted as an input."""
        return [self._record(path) for path in stages.holdings(self.run, self.key)]

    def source(self, name: str) -> Path:
        """A file or folder that the stage reads, such as 'data/tiny/test', or one of the user's."""
        path = manifest.root() / Path(name).expanduser()
        if not path.exists():
            raise PSRError(f"{manifest.shown(path)}: no such file; correct its name in the preset, "
                           "or restore it with git")  # fmt: skip
        return self._record(path)

    def hub(self, data_set: Any, split: str, setting: str) -> Any:
        """Rows of a data set of the hub, an input at the commit that this run read first.

        Raises PSRError that names the `setting` where they are not to be had, or nothing tells at
        which commit.
        """
        from psr_lib import sources

        repo = f"{DATA_SETS}{data_set.repo}"
        commit = self._commit_of(repo) or sources.newest(data_set.repo)
        rows = sources.read_hub(data_set, split, setting, commit)
        if not (commit := commit or sources.commit_of(rows)):
            raise PSRError(f"{data_set.repo}: its cache does not tell which commit it holds, nor "
                           f"does the hub; {sources.WAYS.format(setting=setting)}")  # fmt: skip
        name = data_set.read_as(split).removeprefix(data_set.repo)
        self._inputs[f"{repo}{name}"] = {"hash": commit}
        return rows

    def pairs(self) -> Path:
        """The step pairs of this round: the method's own, or psrlm's for controls that borrow."""
        path = self.run.ppd(self.method, self.iteration) / "ppd.jsonl"
        return self.input(path.relative_to(self.run.path).as_posix())

    def model(self, n: int) -> Path:
        """Folder of M[n] for this method; a base model of the hub is loaded once."""
        if n == 0:
            return self.weights(self.preset.model.base)
        path = self.run.model(self.method, n)
        integrity.check(self.run, path)
        _check_model(path)
        return self._record(path)

    def weights(self, base: str) -> Path:
        """Folder of other people's weights: a folder's name, one of the hub, or of the package.

        Raises PSRError where it is not to be had, or no model lies there.
        """
        from psr_lib import base_weights

        path = manifest.root() / Path(base).expanduser()
        if not path.exists() and base == base_weights.PACKAGE:
            path = base_weights.from_package(manifest.root() / self.run.root / "models")
        elif not path.exists() and base_weights.is_hub_id(base):
            code = self.preset.model.trust_remote_code
            path = base_weights.from_hub(base, self._commit_of(f"hub:{base}"), code)
            _check_model(path)
            self._inputs[f"hub:{base}"] = {**manifest.describe(path), "commit": path.name}
            return path
        _check_model(path)
        return self._record(path)

    def _commit_of(self, name: str) -> str:
        """The commit of a model or data set of the hub that this run has read, '' where it has not.

        So that all stages of a run read the same, whatever is uploaded meanwhile.
        """
        made = [{"inputs": self._inputs}, *lineage.records(self.run, damaged=False).values()]
        inputs = (pair for one in made for pair in one.get("inputs", {}).items())
        # A data set's name goes on with the part and the split that were read.
        found = (entry for label, entry in inputs if f"{label}/".startswith(f"{name}/"))
        return next((one.get("commit", one["hash"]) for one in found), "")

    def _record(self, path: Path) -> Path:
        self._inputs[run_dirs.input_name(self.run, path)] = manifest.describe(path)
        return path

    def output(self, name: str) -> Path:
        """Where to write a file or folder of this stage; `finish` checks that it is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._declared.append(path)
        return path

    def scratch(self, name: str) -> Path:
        """Where unfinished work on an output is kept; no output itself, and gone after `finish`."""
        self._scratch.append(self.output(f"{name}.part"))
        return self._declared.pop()

    @property
    def made_from(self) -> dict[str, Any]:
        """What the result depends on so far; scratch of anything else is of no use."""
        inputs = {name: entry["hash"] for name, entry in self._inputs.items()}
        return {"params": self.params, "code": self.code, "inputs": inputs}

    def count(self, **numbers: Any) -> None:
        """Numbers for the manifest, such as parsed=, dropped=, ties=, rolled_back=."""
        self.counts.update(numbers)

    def tokens(self, generated: int = 0, judged: int = 0) -> None:
        """Add to the tokens generated for solutions and for verdicts."""
        self._tokens["generated"] += int(generated)
        self._tokens["judged"] += int(judged)

    def finish(self) -> dict[str, Any]:
        """Write the manifest, last of all, and return it; raises PSRError if an output is missing.

        Files that an earlier run left here and this one did not write again are removed.
        """
        for path in self._declared:
            if not path.exists():
                raise PSRError(f"{manifest.shown(path)}: was announced but never written")
        self._drop_leftovers()
        result = self._manifest()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / manifest.NAME, manifest.sealed(result))
        for path in (self.folder / manifest.BEFORE, *self._scratch):
            path.unlink(missing_ok=True)
        (locks.unlock_stage if os.environ.get(RUNNING) else locks.unlock)(self.run)
        return result

    def _drop_leftovers(self) -> None:
        now = _file_states(self.folder)
        old = [name for name, state in now.items() if self._before.get(name) == state]
        if old and len(old) == len(now):
            place = manifest.shown(self.folder)
            raise PSRError(
                f"{place}: nothing was written since the stage was opened; run all cells"
            )
        for name in old:
            (self.folder / name).unlink()

    def _manifest(self) -> dict[str, Any]:
        names = manifest.files_in(self.folder)
        return {
            "format": manifest.FORMAT,
            "stage": self.key.stage,
            "preset": self.run.preset,
            "method": self.key.method,
            "iteration": self.key.n,
            "seed": self.seed,
            "by_hand": not os.environ.get(RUNNING),
            "params": self.params,
            "params_hash": stages.params_hash(self.params),
            "code": self.code,
            "git": self._git,
            "inputs": self._inputs,
            "outputs": {name: manifest.describe(self.folder / name, True) for name in names},
            "versions": manifest.versions(),
            "device": manifest.device(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "wall_seconds": round(time.monotonic() - self._began, 2),
            "tokens": self._tokens,
            "counts": self.counts,
            "status": "complete",
        }


def open_stage(
    name: str,
    *,
    preset: str,
    method: str = methods.MAIN,
    iteration: int = 0,
    seed: int = 0,
    runs_dir: str = "runs",
    overrides: str = "",
    seeds: str = "",
) -> Stage:
    """Open a stage of a run; by hand, build what is missing before it first.

    A relative `runs_dir` lies in the repository; several `seeds` ("0 1 2") are for 08 alone. Raises
    PSRError on a bad name, value or round, before anything is written.
    """
    resolved = presets.load(preset, overrides)
    key = stages.make_key(name, method, iteration, resolved.rounds)
    presets.check_method(resolved, method)
    run = run_dirs.run_of(preset, check_seed(seed), runs_dir, seeds)
    if os.environ.get(RUNNING):
        locks.lock_stage(run, str(key))
    else:
        _prepare_by_hand(run, key, method, resolved, overrides)
    manifest.set_aside(run.folder(key))
    return Stage(run, key, method, resolved)


def check_seed(seed: Any) -> int:
    """The seed if it is a whole number of at least 0; raises PSRError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise PSRError(f"seed: expected a whole number of 0 or more, found {seed!r}")
    return seed


def _prepare_by_hand(
    run: RunDir, key: Key, method: str, preset: presets.Preset, overrides: str
) -> None:
    before = stages.in_order(stages.needs(key))
    if key.stage in methods.REPORTS and not stages.holdings(run, key):
        before = stages.in_order(stages.FIRST)  # something to report on
    if any(stage_state(run, need, preset).word != "current" for need in before):
        locks.unlock(run)
        building.build(run, key, method, overrides)
    locks.lock(run, f"{key}, by hand")


def _check_model(path: Path) -> None:
    """Raise PSRError unless the folder holds a configuration, weights and a tokenizer."""
    place = manifest.shown(path)
    if not path.is_dir():
        raise PSRError(
            f"{place}: no such model folder; set model.base, or make base for the tiny one"
        )
    files = {file.name for file in path.iterdir()}
    if not any(name.endswith((".safetensors", ".gguf")) for name in files):
        raise PSRError(f"{place}: no weights (*.safetensors) in it; make the model again")
    if "config.json" not in files and "adapter_config.json" not in files:
        raise PSRError(f"{place}: no config.json in it; make the model again")
    if not files & set(TOKENIZERS):
        raise PSRError(f"{place}: no tokenizer in it; save the tokenizer beside the weights")


def _file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    states = {}
    for name in manifest.files_in(folder) if folder.is_dir() else ():
        found = (folder / name).stat()
        states[name] = (found.st_mtime_ns, found.st_size, found.st_ino)
    return states


if __name__ == "__main__":
    from psr_lib.commands import main

    sys.exit(main())
