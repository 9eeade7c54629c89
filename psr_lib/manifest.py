"""Manifests: what a stage read, ran with and wrote, so that nothing runs twice without a reason.

A manifest is written last. It verifies as long as every output still has its hash; it is current
as long as parameters, code and inputs have theirs too.
"""

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from psr_lib.records import PSRError, hash_file, hash_json, hash_text

NAME = "manifest.json"
BEFORE = "manifest.before.json"  # the last complete one, while its stage runs again
NESTED = ("notebooks", "eval", "judge")  # folders of other owners inside base/ and data/
UNFINISHED = re.compile(r"\.part(-old)?\d*$|\.part\.ipynb$")  # a file or folder on its way
FORMAT = 2  # always with a seal; one of format 1 may be from before there were any
LARGE = 64 * 2**20  # bytes from which a file is sampled instead of read whole
SAMPLES, SAMPLE = 16, 2**20
PLAY = "play"  # the tag of a cell that is the reader's: nothing of it goes into a result
STANDARD = ("preset", "method", "iteration", "seed", "runs_dir", "overrides")
# These carry files and parameters to a stage, watch and show it; no number of a result is theirs
# (what presets resolve to is hashed as the stage's parameters).
CARRIERS = frozenset({"runs", "commands", "stages", "manifest", "notebook_runner", "progress",
                       "tallies", "presets", "lineage", "show", "play"})  # fmt: skip
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers",
            "numpy", "pandas", "scipy", "vllm")  # fmt: skip


def root() -> Path:
    """The repository's root: the folder of pyproject.toml above this file, or above the cwd."""
    for start in (Path(__file__).resolve().parent, Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                return folder
    raise PSRError("no repository found: no pyproject.toml beside notebooks/ above this folder")


def shown(path: Path) -> str:
    """A path as messages show it: relative to the repository where it lies inside."""
    try:
        return str(Path(path).relative_to(root()))
    except ValueError:
        return str(path)


def fingerprint(path: Path) -> str:
    """Hash of a file, or of all files of a folder; files over 64 MiB are sampled.

    Raises PSRError if nothing is there.
    """
    if path.is_dir():
        return hash_json({name: fingerprint(path / name) for name in files_in(path, ())})
    if not path.is_file():
        raise PSRError(f"{shown(path)}: no such file")
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for index in range(SAMPLES):
            file.seek((size - SAMPLE) * index // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return f"sampled-{size}-{digest.hexdigest()}"


def identity(model: Path | str) -> str:
    """What tells one model from another: its files' hash, or its name where it is not local."""
    return fingerprint(Path(model)) if Path(model).exists() else str(model)


def files_in(folder: Path, nested: Sequence[str] = NESTED) -> list[str]:
    """Names (relative, sorted) of a folder's own files, without manifests and unfinished parts.

    `nested` are folders inside it that are not its own.
    """
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    own = (path for path in found if path.parts[0] not in nested)
    return sorted(path.as_posix() for path in own if path.as_posix() not in (NAME, BEFORE)
                  and not any(map(UNFINISHED.search, path.parts)))  # fmt: skip


def rows_in(path: Path) -> int | None:
    """Number of rows of a JSONL or CSV file (its header counted off), None for anything else."""
    if path.suffix not in {".jsonl", ".csv"} or not path.is_file():
        return None
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip()) - (path.suffix == ".csv")


def describe(path: Path, whole: bool = False) -> dict[str, Any]:
    """Hash, bytes and rows of a file or folder, as manifests hold them.

    With `whole` the sha256 of a sampled file too, which `make verify` compares.
    """
    entry: dict[str, Any] = {"hash": fingerprint(path)}
    if path.is_file():
        entry["bytes"] = path.stat().st_size
        if whole and entry["bytes"] > LARGE:
            entry["sha256"] = hash_file(path)
    if (rows := rows_in(path)) is not None:
        entry["rows"] = rows
    return entry


def read(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, None if it has none; raises PSRError if it is damaged.

    A stage that was interrupted while it ran again, before it wrote anything, keeps its last one.
    """
    if (folder / NAME).is_file():
        return _parse(folder / NAME)
    if not (folder / BEFORE).is_file():
        return None
    before = _parse(folder / BEFORE)
    return None if damage(folder, before) else before


def set_aside(folder: Path) -> None:
    """Keep the last complete manifest under another name while its stage runs again."""
    if (folder / NAME).is_file():
        os.replace(folder / NAME, folder / BEFORE)


def put_back(folder: Path) -> None:
    """Undo `set_aside` where the stage has written nothing since, as nothing else has changed."""
    with suppress(PSRError):  # a damaged one is told by who reads it
        if (folder / BEFORE).is_file() and not (folder / NAME).is_file() and read(folder):
            os.replace(folder / BEFORE, folder / NAME)


def sealed(found: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of all that it says, so that an edited one is found."""
    plain = json.loads(json.dumps(found))  # as it will be read: keys are texts there
    return {**found, "seal": hash_json(plain)}


def _parse(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        seal = found.pop("seal", None)
        if seal is None and found["format"] == FORMAT:
            raise ValueError("its seal is missing")
        if seal not in (None, hash_json(found)):
            raise ValueError("edited after it was written")
        if found["format"] not in (1, FORMAT) or found["status"] != "complete":
            raise ValueError(f"format {found['format']}, status {found['status']}")
        found["outputs"].items(), found["inputs"].items(), found["code"].items()
        found["params"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PSRError(f"{shown(path)}: damaged ({error})") from None
    return found


def damage(folder: Path, found: dict[str, Any]) -> str:
    """The first output that is missing or no longer has its recorded hash; '' if all verify."""
    for name, entry in found["outputs"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (size := path.stat().st_size) != entry["bytes"]:
            return f"{name} changed after it was written: {size:,} bytes, not {entry['bytes']:,}"
        if fingerprint(path) != entry["hash"]:
            return f"{name} changed after it was written"
    return ""


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, as 'search.width 6 -> 4'."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{where} {old} -> {new}"]
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{where}.{key}" if where else key
        found += differences(old.get(key), new.get(key), inner)
    return found


def code_hashes(notebook: Path, library: Path) -> dict[str, str]:
    """Hash of a notebook's code cells and of each `psr_lib` file that they import, directly or not.

    The standard parameters' own lines are left out: their values are parameters, not code.
    """
    source = notebook_source(notebook)
    hashes = {notebook.name: hash_text(source)}
    for path in imported_files(source, library):
        hashes[path.relative_to(library.parent).as_posix()] = fingerprint(path)
    return hashes


def notebook_source(notebook: Path) -> str:
    """The notebook's code cells as one text; raises PSRError if the file is no notebook."""
    own = re.compile(rf"^({'|'.join(STANDARD)})\b.*$", re.MULTILINE)
    cells = code_cells(notebook)
    return "\n\n".join(own.sub("", text) if tagged else text for text, tagged in cells)


def parameters_source(notebook: Path) -> str:
    """The notebook's `parameters` cell, '' if it has none."""
    return next((text for text, tagged in code_cells(notebook) if tagged), "")


def code_cells(notebook: Path) -> list[tuple[str, bool]]:
    """Source of each code cell but the reader's, and whether it is tagged `parameters`."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = [("".join(cell["source"]), cell["metadata"].get("tags", []))
                for cell in cells if cell["cell_type"] == "code"]  # fmt: skip
        return [(text, "parameters" in tags) for text, tags in code if PLAY not in tags]
    except FileNotFoundError:
        raise PSRError(f"{shown(notebook)}: no such notebook") from None
    except (ValueError, KeyError, TypeError):
        raise PSRError(f"{shown(notebook)}: not a readable notebook") from None


def imported_files(source: str, library: Path) -> list[Path]:
    """Files of the package that a Python source imports, followed through, carriers left out."""
    found: dict[str, Path] = {}
    queue = sorted(imports_of(source, library))
    while queue:
        name = queue.pop()
        path = module_file(name, library)
        if name in found or path is None or name.split(".")[0] in CARRIERS:
            continue
        found[name] = path
        queue += sorted(imports_of(path.read_text(encoding="utf-8"), library, name))
    return [found[name] for name in sorted(found)]


@lru_cache(maxsize=512)  # of every stage of a run the same files are read
def _imports(source: str, name: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    nodes = ast.walk(_parse_code(source, name))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def _parse_code(source: str, name: str) -> ast.Module:
    lines = (line for line in source.split("\n") if not line.lstrip().startswith(("%", "!")))
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError as error:
        raise PSRError(f"{name}: not valid Python ({error.msg}); correct it first") from None


def imports_of(source: str, library: Path, within: str = "") -> set[str]:
    """Modules of the package (dotted, without its name) that a source imports, lazily or not."""
    package, names = library.name, set()
    for node in _imports(source, f"{package}.{within}" if within else "notebook"):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            base = _absolute(node, package, within, library)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    inside = (name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}."))
    modules = set()
    for name in inside:  # psr_lib.engines.hf also runs psr_lib.engines
        parts = name.split(".")
        modules |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return {name for name in modules if module_file(name, library)}


def _absolute(node: ast.ImportFrom, package: str, within: str, library: Path) -> str:
    """The dotted name that `from ... import` names, relative ones resolved inside `within`."""
    if not node.level:
        return node.module or ""
    path = module_file(within, library)
    is_package = path is not None and path.name == "__init__.py"
    parts = [package, *within.split(".")]
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def module_file(name: str, library: Path) -> Path | None:
    """The file of a module of the package, None if there is none."""
    plain = library.joinpath(*name.split(".")) if name else library
    for path in (plain.with_suffix(".py"), plain / "__init__.py"):
        if path.is_file():
            return path
    return None


def versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device() -> str:
    """The accelerator's name if torch is loaded and sees one, else the processor's kind."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the repository; None for both outside git or before a commit.

    Kept summaries are results, not sources: a run after another one was kept is not dirty.
    """
    commit = _git("rev-parse", "HEAD")
    dirty = _git("status", "--porcelain", "--", ".", ":(exclude)data/results")
    return {"commit": commit, "dirty": None if dirty is None else bool(dirty)}


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root(), *args], capture_output=True, encoding="utf-8")
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
