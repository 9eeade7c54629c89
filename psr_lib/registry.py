"""Names of what can be exchanged: judges, engines, teachers, benchmarks, losses, filters of pairs.

    @register("judge", "both-slots")
    def both_slots(judge, calls): ...

after which a preset may say `judge.kind: both-slots`. Built-in ones are registered in the same way,
by the module that `KINDS` names, which is imported when one of them is asked for. Others come from

- files or modules that the preset's `extensions` lists (a notebook's own code: kernels import it
  too, and its hash goes into the manifest of each stage that uses one of its names);
- entry points of installed packages, one group a kind:

      [project.entry-points."psr_lib.judges"]
      both-slots = "my_package.judges:both_slots"
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from psr_lib import manifest
from psr_lib.records import PSRError, hash_file

LIBRARY = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Kind:
    """One kind of thing: its group of entry points, the built-in names and who registers them."""

    group: str
    module: str
    built_in: tuple[str, ...]


# What is registered, and what is called with what, stands in the module of each kind.
KINDS = {
    "judge": Kind("psr_lib.judges", "psr_lib.judge", ("self", "random", "oracle")),
    "engine": Kind("psr_lib.engines", "psr_lib.engines.opening", ("hf", "vllm", "server", "ray")),
    "teacher": Kind("psr_lib.teachers", "psr_lib.annotators", ("oracle", "rule", "api")),
    "scorer": Kind("psr_lib.scorers", "psr_lib.score_teachers", ("oracle", "rule", "api")),
    "segmenter": Kind("psr_lib.segmenters", "psr_lib.source_pools", ("rule", "api")),
    "benchmark": Kind(
        "psr_lib.benchmarks", "psr_lib.benchmarks",
        ("gsm8k", "math", "gaokao2023en", "olympiadbench", "aime2024", "amc2023", "math500",
         "svamp", "multiarith", "gsm_symbolic"),
    ),
    "loss": Kind(
        "psr_lib.losses", "psr_lib.losses",
        ("sigmoid", "hinge", "ipo", "robust", "apo_zero", "nca_pair"),
    ),
    "filter": Kind("psr_lib.filters", "psr_lib.pair_filters", ("margin", "length")),
}  # fmt: skip


class Entry(NamedTuple):
    """What was registered, and the file that did it."""

    made: Any
    file: Path


_entries: dict[tuple[str, str], Entry] = {}
_imported: dict[Path, str] = {}  # extension -> hash of what was imported


def register(kind: str, name: str) -> Callable[[Any], Any]:
    """A decorator that makes something known to presets by its name.

    Raises PSRError where the kind is unknown, the name is another file's, or there is no file: what
    a notebook's cell defines no other kernel would see.
    """
    home = sys._getframe(1).f_globals.get("__file__")
    if home is None:
        raise PSRError(f"register({kind!r}, {name!r}): write it into a file and name that in the "
                       "preset's extensions, so that the kernels of a run import it")  # fmt: skip

    def keep(made: Any) -> Any:
        _check_free(kind, name, Path(home).resolve())
        _entries[kind, name] = Entry(made, Path(home).resolve())
        return made

    return keep


def _check_free(kind: str, name: str, home: Path) -> None:
    if kind not in KINDS:
        raise PSRError(f"register: no kind {kind!r}; there are {', '.join(KINDS)}")
    built_in, found = name in KINDS[kind].built_in, _entries.get((kind, name))
    if built_in and not home.is_relative_to(LIBRARY):
        raise PSRError(f"register: {kind} {name!r} is built in; choose another name")
    if found and found.file != home:
        owner = manifest.shown(found.file)
        raise PSRError(f"register: {kind} {name!r} is {owner}'s; choose another name")


def names(kind: str) -> list[str]:
    """Every name of a kind: built-in, registered so far, or an installed package's."""
    own = (name for of, name in _entries if of == kind)
    return list(dict.fromkeys((*KINDS[kind].built_in, *own, *_points(KINDS[kind].group))))


def known(kind: str, name: str) -> bool:
    """Whether a name can be found; installed packages are looked through only if it must be."""
    return (
        name in KINDS[kind].built_in
        or (kind, name) in _entries
        or name in _points(KINDS[kind].group)
    )


def find(kind: str, name: str) -> Any:
    """What is registered under a name; raises PSRError that lists what there is."""
    return _entry(kind, name).made


def origin(kind: str, name: str) -> Path | None:
    """The file from outside that registered a name; None for built-in and for unknown names."""
    if name in KINDS[kind].built_in or not known(kind, name):
        return None
    return _entry(kind, name).file


def _entry(kind: str, name: str) -> Entry:
    if (kind, name) not in _entries:
        if name in KINDS[kind].built_in:
            importlib.import_module(KINDS[kind].module)
        elif point := _points(KINDS[kind].group).get(name):
            _entries[kind, name] = _loaded(point)
        else:
            raise PSRError(f"{kind}: {name!r} is unknown; there are {', '.join(names(kind))}")
    return _entries[kind, name]


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _loaded(point: EntryPoint) -> Entry:
    try:
        made = point.load()
    except Exception as error:
        raise PSRError(f"entry point {point.name} = {point.value}: {_said(error)}") from error
    return Entry(made, Path(str(sys.modules[point.module].__file__)).resolve())


def use(name: str) -> Path:
    """Import an extension, and say so in one line; again only where it has changed since.

    `name`: a file that ends in .py, from the repository's root, or a module. Raises PSRError where
    it is not there, or fails while it is imported.
    """
    path = _file_of(name)
    content = hash_file(path)
    if _imported.get(path) != content:
        for key in [key for key, entry in _entries.items() if entry.file == path]:
            del _entries[key]
        _import(name, path)
        _imported[path] = content
        print(f"extension {name}: imported {manifest.shown(path)}", flush=True)
    return path


def imported() -> list[Path]:
    """The files of extensions that this process has imported."""
    return list(_imported)


def modules() -> list[ModuleType]:
    """The extensions that this process has imported."""
    found = [one for one in list(sys.modules.values()) if getattr(one, "__file__", None)]
    return [one for one in found if Path(str(one.__file__)).resolve() in _imported]


def _file_of(name: str) -> Path:
    missing = PSRError(f"extension {name!r}: no such file or module; give a file that ends in .py, "
                       "from the repository's root, or an installed module")  # fmt: skip
    if name.endswith(".py"):
        path = manifest.root() / Path(name).expanduser()
        if not path.is_file():
            raise missing
        return path.resolve()
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        raise missing from None
    if spec is None or spec.origin is None:
        raise missing
    return Path(spec.origin).resolve()


def _import(name: str, path: Path) -> None:
    try:
        if not name.endswith(".py"):
            _import_module(name)
            return
        spec = importlib.util.spec_from_file_location(f"psr_extension_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except PSRError:
        raise
    except Exception as error:
        raise PSRError(f"extension {name}: {_said(error)}") from error


def _import_module(name: str) -> ModuleType:
    known_one = sys.modules.get(name)
    return importlib.reload(known_one) if known_one else importlib.import_module(name)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
