"""Where problems come from: a data set of the hub, a local file or folder, or a generator.

`data.source` is a name of `KNOWN`, `owner/name` of any data set of the hub, or a path (from the
repository's root), or several of them joined by `+`. Rows are read when they are asked for, so a
large set need not fit into memory.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psr_lib import symbolic
from psr_lib.base_weights import is_hub_id
from psr_lib.layouts import find_layout, read_problem
from psr_lib.presets import PROCEDURAL
from psr_lib.records import Problem, PSRError, read_json, read_jsonl

SUBJECTS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra",
            "number_theory", "prealgebra", "precalculus")  # fmt: skip
COMMIT = re.compile("[0-9a-f]{40}")
Rows = Sequence[Mapping[str, Any]]
WAYS = "download it and set {setting} to its folder, or check the name and the connection"


@dataclass(frozen=True)
class Hub:
    """A data set of the hub: its parts are joined; `files` names those of its files to read."""

    repo: str
    configs: tuple[str, ...] = ("",)
    split: str = ""
    files: str = ""

    def read_as(self, split: str) -> str:
        """What is read of it, as manifests name it; another split is another name.

        >>> Hub("openai/gsm8k", ("main",)).read_as("train")
        'openai/gsm8k/main/train'
        """
        parts = (self.repo, "+".join(self.configs), self.files, self.split or split)
        return "/".join(filter(None, parts))


Read = Callable[[Hub, str, str], Rows]  # what `read_hub` takes


KNOWN = {
    "numina": Hub("AI-MO/NuminaMath-CoT"),
    "gsm8k": Hub("openai/gsm8k", ("main",)),
    "math": Hub("EleutherAI/hendrycks_math", SUBJECTS),
    "prm800k": Hub("tasksource/PRM800K", files="phase2_train.jsonl"),
}


@dataclass(frozen=True)
class Source:
    """Rows of a data set, read as problems by one layout; `path` is what was read, '' for none."""

    name: str
    rows: Rows
    layout: Mapping[str, str]
    path: str = ""
    calculator: bool = False
    origins: Sequence[str] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def problem(self, index: int) -> Problem:
        """The problem of a row; raises PSRError naming file, row and field."""
        name = f"{self.name}/{index}"
        return read_problem(self.rows[index], self.layout, name, self.name, self.where(index),
                            self.calculator)  # fmt: skip

    def where(self, index: int) -> str:
        """How messages name a row."""
        if self.origins:
            return self.origins[index]
        return f"{self.path or self.name}, row {index + 1}"


def open_sources(
    names: str, split: str, root: Path, *, fields: Mapping[str, str] | None = None,
    calculator: bool = False, seed: int = 0, read: Read | None = None,
) -> list[Source]:  # fmt: skip
    """Every source that `data.source` names, joined by `+` where they are several.

    `read` reads a data set of the hub in the place of `read_hub`. Raises PSRError as `open_source`
    does, and where two have one name, which their problems bear.
    """
    parts = [names] if _local(names, root).exists() else [n.strip() for n in names.split("+")]
    found = [
        open_source(part, split, root, fields=fields, calculator=calculator, seed=seed, read=read)
        for part in parts
    ]
    labels = [source.name for source in found]
    if twice := next((label for label in labels if labels.count(label) > 1), ""):
        raise PSRError(f"data.source {names!r}: two are called {twice!r}; rename one of them")
    return found


def open_source(
    name: str, split: str, root: Path, *, fields: Mapping[str, str] | None = None,
    calculator: bool = False, seed: int = 0, read: Read | None = None,
) -> Source:  # fmt: skip
    """The source of a name; a relative path lies below `root`.

    Raises PSRError where it is not there, holds no rows, or its fields are not known.
    """
    local = _local(name, root)
    rows, path, origins = _rows(name, local, split, seed, read or read_hub)
    label = name if not path else local.name.split(".")[0]
    where = origins[0] if origins else f"{path or name}, row 1"
    if not len(rows):
        raise PSRError(f"{path or name}: no rows; set data.source to a file that holds some")
    source = Source(label, rows, find_layout(rows[0], where, fields), path, calculator, origins)
    if isinstance(rows, list):  # in memory, so few enough to be checked at once
        for index in range(len(source)):
            source.problem(index)
    return source


def _rows(
    name: str, local: Path, split: str, seed: int, read: Read
) -> tuple[Rows, str, Sequence[str]]:
    """The rows; the path and the origins of a local set."""
    if name == symbolic.NAME:
        return symbolic.Rows("train", seed), "", []
    if name in KNOWN or (not local.exists() and is_hub_id(name)):
        hub = KNOWN.get(name) or _hub(name)
        return read(hub, split, "data.source"), "", []
    if local.exists():
        path = split_file(local, split) or local
        rows, origins = read_local(path, split, "data.source")
        return rows, str(path), origins
    names = ", ".join((PROCEDURAL, symbolic.NAME, *KNOWN))
    raise PSRError(
        f"data.source {name!r}: no such file or folder, and none of {names}; a data set of the "
        "hub is owner/name"
    )


def _local(name: str, root: Path) -> Path:
    return root / Path(name).expanduser()


def _hub(name: str) -> Hub:
    """A data set by its hub name; one of `KNOWN` keeps its parts."""
    return next((hub for hub in KNOWN.values() if hub.repo == name), Hub(name))


def newest(repo: str) -> str:
    """The newest commit of a data set of the hub, '' where the hub does not tell."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(repo, timeout=30).sha or ""
    except Exception:  # no common base; without a connection the cache may hold the data set
        return ""


def commit_of(rows: Rows) -> str:
    """The commit that rows of the hub were read at: it names their folder in the cache; or ''."""
    files = getattr(rows, "cache_files", ())
    folders = (Path(file["filename"]).parent.name for file in files)
    return next(filter(COMMIT.fullmatch, folders), "")


def read_hub(hub: Hub, split: str, setting: str, commit: str = "") -> Rows:
    """Rows of a data set of the hub at a commit, the newest if '', mapped from its cache.

    Raises a one-line PSRError where they are not to be had, or not at that commit.
    """
    files = {"data_files": hub.files} if hub.files else {}
    way = WAYS.format(setting=setting)
    try:
        from datasets import concatenate_datasets, load_dataset

        parts = [load_dataset(hub.repo, config or None, split=hub.split or split,
                              revision=commit or None, **files)
                 for config in hub.configs]  # fmt: skip
        rows = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    except Exception as error:  # the library's errors have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PSRError(f"{hub.repo}: not to be had from the hub ({reason}); {way}") from None
    # Without a connection the library takes what it read last, whatever it is asked for.
    found = {commit, *map(commit_of, parts)} - {""}
    if len(found) > 1:
        raise PSRError(f"{hub.repo}: not to be had at one commit, as the hub does not answer and "
                       f"its cache holds another ({', '.join(sorted(found))}); {way}")  # fmt: skip
    return rows


def read_local(path: Path, split: str, setting: str) -> tuple[Rows, list]:
    """Rows of a file or folder, and where each is from if not from one file (one JSON file each).

    A folder holds `<split>.jsonl`, `.jsonl.gz`, `.json` or parquet files of the split, as data sets
    are downloaded, or a folder `<split>` of JSON files with one problem each, as MATH is.
    """
    path = split_file(path, split) or path
    if path.is_dir():
        return _from_folder(path, split, setting)
    if path.suffix == ".parquet":
        return _parquet([path]), []
    if path.suffix == ".json":
        value = read_json(path)
        return _objects(value if isinstance(value, list) else [value], path), []
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _objects(read_jsonl(path), path), []
    raise PSRError(f"{path}: not a .jsonl, .jsonl.gz, .json or .parquet file")


def split_file(folder: Path, split: str) -> Path | None:
    """The one file of a split in a folder, None if there is none."""
    names = [f"{split}{end}" for end in (".jsonl", ".jsonl.gz", ".json")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _from_folder(folder: Path, split: str, setting: str) -> tuple[Sequence, list[str]]:
    parquet = sorted(folder.glob(f"**/{split}-*.parquet")) or sorted(
        folder.glob(f"**/{split}/*.parquet")
    )
    if parquet:
        return _parquet(parquet), []
    single = sorted((folder / split).glob("**/*.json"))
    if single:
        rows = [_objects([read_json(path)], path)[0] for path in single]
        return rows, [f"{path}, row 1" for path in single]
    raise PSRError(
        f"{folder}: no {split}.jsonl, {split}.jsonl.gz, {split}.json, {split}-*.parquet or folder "
        f"{split} of JSON files in it; set {setting} to the file itself"
    )


def _objects(rows: list[Any], path: Path) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise PSRError(f"{path}, row {number}: expected a JSON object, found {kind}")
    return rows


def _parquet(paths: list[Path]) -> Rows:
    try:
        from datasets import load_dataset

        return load_dataset("parquet", data_files=[str(path) for path in paths], split="train")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise PSRError(f"{paths[0]}: not a readable parquet file ({reason})") from None
