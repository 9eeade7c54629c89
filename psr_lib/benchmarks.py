"""Benchmarks: lists of problems with gold answers, from a local folder or the hub.

The small laboratory's six sets are fixed in `data/tiny/test`; `data/tiny/dev` holds six more, made
apart, on which every design choice was made. No training pool holds a problem of either. The sets
of the paper (section 4) are read from where their authors publish them, or from a folder that
`data.benchmark_folder` names, in the layout of the Qwen2.5-Math evaluation (`<set>/test.jsonl`).
`gsm_symbolic` is made, of templates that no training pool uses. A benchmark of your own is a file
in that folder, or registered under its name: a function of the open stage that returns problems.
"""

from functools import partial
from pathlib import Path
from typing import Any

from psr_lib import manifest, registry, sources, symbolic
from psr_lib.layouts import find_layout
from psr_lib.problems import TEST_SETS, make_problems
from psr_lib.records import Problem, PSRError, read_jsonl, write_jsonl
from psr_lib.registry import register
from psr_lib.sources import SUBJECTS, Hub, Source

SPLITS = {"test": 20250305, "dev": 20250306}  # seed of each split
SIZE = 300
SETTING = "data.benchmark_folder"
HUB = {
    "gsm8k": Hub("openai/gsm8k", ("main",), "test"),
    "math": Hub("EleutherAI/hendrycks_math", SUBJECTS, "test"),
    "gaokao2023en": Hub("MARIO-Math-Reasoning/Gaokao2023-Math-En", split="train"),
    "olympiadbench": Hub("Hothan/OlympiadBench", ("OE_TO_maths_en_COMP",), "train"),
    "aime2024": Hub("HuggingFaceH4/aime_2024", split="train"),
    "amc2023": Hub("math-ai/amc23", split="test"),
    "math500": Hub("HuggingFaceH4/MATH-500", split="test"),
    "svamp": Hub("ChilleD/SVAMP", split="train+test"),
    "multiarith": Hub("ChilleD/MultiArith", split="train+test"),
}
ALIASES = {"aime2024": ("aime24",), "amc2023": ("amc23",), "math500": ("MATH-500", "math_500"),
           "multiarith": ("mawps/multiarith",)}  # fmt: skip


def open_sets(stage: Any, size: int | None = None) -> dict[str, list[Problem]]:
    """The sets that a stage's preset names, `size` problems of each (0: all; None: the preset's).

    Raises PSRError that names a missing set, or a row that cannot be read.
    """
    settings = stage.preset.data
    size = settings.benchmark_size if size is None else size
    return {name: _sized(name, _open(stage, name), size) for name in settings.benchmarks}


def _open(stage: Any, name: str) -> list[Problem]:
    """All problems of a set; what it is read from is an input of the stage."""
    if registry.known("benchmark", name):
        return registry.find("benchmark", name)(stage)
    return _published(stage, name)


def _published(stage: Any, name: str) -> list[Problem]:
    """A set as its authors publish it, from the hub or from the preset's folder."""
    settings = stage.preset.data
    if settings.benchmark_folder == "hub":
        return _from_hub(stage, name)
    folder = manifest.root() / Path(settings.benchmark_folder).expanduser()
    stage.source(str(find(folder, name, settings.split)))
    return load(folder, (name,), 0, settings.split)[name]


for _name in HUB:
    register("benchmark", _name)(partial(_published, name=_name))


@register("benchmark", symbolic.NAME)
def _symbolic(stage: Any) -> list[Problem]:
    return symbolic.held_out(stage.preset.data.split)


def load(
    folder: Path | str, names: tuple[str, ...], size: int, split: str = "test"
) -> dict[str, list[Problem]]:
    """The first `size` problems (0: all) of each named set in a folder.

    Raises PSRError that names a missing set or one that is too small.
    """
    sets = {}
    for name in names:
        path = find(Path(folder), name, split)
        rows, origins = sources.read_local(path, split, SETTING)
        sets[name] = _sized(name, _problems(name, rows, str(path), origins), size)
    return sets


def find(folder: Path, name: str, split: str) -> Path:
    """The file of a set in a folder of sets (a folder where a set has several)."""
    for alias in (name, *ALIASES.get(name, ())):
        for path in (folder / split / f"{alias}.jsonl", folder / f"{alias}.jsonl",
                     folder / f"{alias}.jsonl.gz", folder / alias):  # fmt: skip
            if path.exists():
                return sources.split_file(path, split) or path
    place = folder / split if (folder / split).is_dir() else folder
    known = sorted({path.name.split(".")[0] for path in place.glob("*")})
    raise PSRError(
        f"benchmark {name!r}: no file {name}.jsonl and no folder {name} in {place}; there are "
        f"{known}; set {SETTING}"
    )


def _from_hub(stage: Any, name: str) -> list[Problem]:
    if name not in HUB:
        known = sorted(registry.names("benchmark"))
        raise PSRError(f"benchmark {name!r} has no place on the hub; choose from {known}")
    hub = HUB[name]
    return _problems(name, stage.hub(hub, hub.split, SETTING), "", [])


def _problems(name: str, rows: Any, path: str, origins: list[str]) -> list[Problem]:
    """All rows of a set; a row without a gold answer stays, since no answer to it can be right."""
    if not len(rows):
        raise PSRError(f"benchmark {name!r}: {path} holds no rows; set {SETTING}")
    layout = find_layout(rows[0], origins[0] if origins else f"{path or name}, row 1")
    source = Source(name, rows, layout, path, origins=origins)
    return [source.problem(index) for index in range(len(source))]


def _sized(name: str, rows: list[Problem], size: int) -> list[Problem]:
    if len(rows) < size:
        raise PSRError(f"benchmark {name!r}: {len(rows)} problems, "
                       f"data.benchmark_size asks for {size}")  # fmt: skip
    return rows[:size] if size else rows


def make_tiny(folder: Path | str) -> None:
    """Write the laboratory's dev and test sets, disjoint; the same bytes at every call."""
    taken: set[str] = set()
    for split, seed in SPLITS.items():
        for name in TEST_SETS:
            rows = make_problems(f"{split}-{name}", [name], SIZE, seed, taken)
            # The solution follows from the question; leaving it out keeps the files small.
            rows = [
                Problem(id=f"{name}/{i}", source=f"tiny/{split}", question=row.question,
                        answer=row.answer, meta=row.meta)
                for i, row in enumerate(rows)
            ]  # fmt: skip
            write_jsonl(Path(folder) / split / f"{name}.jsonl", rows)


def questions_of(folder: Path | str) -> set[str]:
    """The text of every question under a folder: what no training pool may hold."""
    paths = sorted(Path(folder).rglob("*.jsonl"))
    return {row.question for path in paths for row in read_jsonl(path, Problem)}
