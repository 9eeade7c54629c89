"""Whether a run holds what its stages wrote: asked whenever a file is read, and by `make verify`.

A file is believed if the manifest above it is complete, belongs in that folder, and names the file
with its size and hash. Large files are sampled when they are read and read whole by `make verify`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from psr_lib import manifest
from psr_lib.methods import BASE, DATA, DPO, INIT, MAIN, METHODS, REPORTS, STAGES
from psr_lib.records import PSRError, hash_file
from psr_lib.run_dirs import Key, RunDir, SeedsDir, input_path

USUAL = "tiny"  # the preset of make
NAMED = 3  # folders that a note lists


def check(run: RunDir, path: Path) -> Path:
    """The file or folder, if the stage that made it is complete and all of it is unchanged.

    Raises PSRError that names the file, the stage that made it, and how to make it again.
    """
    owner = owner_of(run, path)
    found = read(run, owner) if owner else None
    if owner is None or found is None:
        raise PSRError(f"{manifest.shown(path)}: no complete stage made it; run make iteration")
    inside = path.relative_to(owner).as_posix()
    key, wanted = key_of(found), _within(found["outputs"], inside)
    if path != owner and not wanted:
        raise PSRError(f"{manifest.shown(path)}: {key} did not make it; {remedy(run, key)}")
    if fault := fault_of(run, owner, {**found, "outputs": wanted}):
        raise PSRError(f"{manifest.shown(owner)}: {fault}; {remedy(part_of(run, owner), key)}")
    if path == owner and (stray := unknown(owner, found)):  # whoever loads a folder loads it too
        raise PSRError(f"{manifest.shown(owner)}: {stray}")
    return path


def _within(outputs: dict[str, Any], inside: str) -> dict[str, Any]:
    """Those of a stage's outputs that a path within its folder stands for, `.` for all."""
    return {name: entry for name, entry in outputs.items()
            if inside in (name, *map(str, PurePosixPath(name).parents))}  # fmt: skip


def owner_of(run: RunDir, path: Path) -> Path | None:
    """The stage's folder that a path of the run lies in, None if no stage claims it."""
    folders = [path, *path.parents] if path.is_dir() else [*path.parents]
    inside = (one for one in folders if any(one.is_relative_to(p.path) for p in (run, *run.parts)))
    names = (manifest.NAME, manifest.BEFORE)
    return next((one for one in inside if any((one / name).is_file() for name in names)), None)


def key_of(found: dict[str, Any]) -> Key:
    """The stage that wrote a manifest."""
    return Key(found["stage"], found["method"], found["iteration"])


def read(run: RunDir, folder: Path) -> dict[str, Any] | None:
    """A stage's manifest, None if it has none; a damaged one is named with its stage."""
    try:
        return manifest.read(folder)
    except PSRError as error:
        found = stage_at(run, folder)
        way_out = remedy(*found) if found else "delete it and make it again"
        raise PSRError(f"{error}; {way_out}") from None


def stage_at(run: RunDir, folder: Path) -> tuple[RunDir, Key] | None:
    """The stage that writes into a folder of a run, by its place alone, and whose run it is."""
    part = part_of(run, folder)
    rounds = (name[1:] for name in folder.relative_to(part.path).parts if name[:1] == "M")
    n = next((int(digits) for digits in rounds if digits.isdecimal()), 0)
    stages = [stage for stage in STAGES if stage != (INIT if n > 1 else DPO)]
    methods = METHODS if n else ("", *METHODS)
    keys = (Key(stage, method, n) for stage in stages for method in methods)
    return next(((part, key) for key in keys if part.folder(key) == folder), None)


def part_of(run: RunDir, folder: Path) -> RunDir:
    """The run of one seed that a folder lies in, or that of all seeds together."""
    return next((part for part in run.parts if folder.is_relative_to(part.path)), run)


def remedy(run: RunDir, key: Key) -> str:
    """The command after which a stage is made again, or for several seeds' tables that makes it."""
    preset = "" if run.preset == USUAL else f" PRESET={run.preset}"
    if isinstance(run, SeedsDir):
        seeds = " ".join(map(str, run.seeds))
        return f'{key} has to run again: make paper SEEDS="{seeds}"{preset} FORCE=1'
    n = None if key.stage in (BASE, DATA, *REPORTS) else key.n
    words = f"STAGE={key.stage[:2]}{model_words(run, key.method, n)}"
    return f"{key} has to run again, after make clean-stage {words}"


def model_words(run: RunDir, method: str, n: int | None) -> str:
    """What make is told of a model where it is not the usual, such as ` METHOD=srlm N=2 SEED=1`."""
    return "".join((
        f" METHOD={method}" if method not in ("", MAIN) else "",
        "" if n is None else f" N={n}",
        "" if run.preset == USUAL else f" PRESET={run.preset}",
        f" SEED={run.seed}" if run.seed else "",
    ))  # fmt: skip


def fault_of(run: RunDir, folder: Path, found: dict[str, Any]) -> str:
    """Why the files of a stage are not to be believed, large ones sampled; '' if they are."""
    return misplaced(run, folder, found) or manifest.damage(folder, found)


def misplaced(run: RunDir, folder: Path, found: dict[str, Any]) -> str:
    """Whose files a folder holds, where they are another stage's; '' where they belong there."""
    part = part_of(run, folder)
    seed = found.get("seed", part.seed)
    if part.folder(key_of(found)) == folder and seed == part.seed:
        return ""
    return f"holds what {key_of(found)} of seed {seed} made, which belongs elsewhere"


def check_all(run: RunDir) -> None:
    """Raise PSRError where a complete stage of a run, or of its seeds, has changed, as `check`."""
    for path in (path for part in (run, *run.parts) for path in part.path.rglob(manifest.NAME)):
        folder = path.parent
        found = read(run, folder)
        if found and (fault := fault_of(run, folder, found)):
            way_out = remedy(part_of(run, folder), key_of(found))
            raise PSRError(f"{manifest.shown(folder)}: {fault}; {way_out}")


class Finding(NamedTuple):
    """A stage's folder, what is wrong with it ('' if nothing is), and its size."""

    folder: Path
    wrong: str = ""
    files: int = 0
    bytes: int = 0


def audit(run: RunDir) -> Iterator[Finding]:
    """Every complete stage of a run, its files read whole, its inputs compared."""
    for path in sorted(run.path.rglob(manifest.NAME)):
        try:
            yield _audit(run, path.parent)
        except PSRError as error:
            yield Finding(path.parent, str(error))


def _audit(run: RunDir, folder: Path) -> Finding:
    found = read(run, folder)
    assert found is not None
    fault = fault_of(run, folder, found) or changed_whole(folder, found)
    if fault:
        return Finding(folder, f"{fault}; {remedy(run, key_of(found))}")
    sizes = [entry["bytes"] for entry in found["outputs"].values()]
    return Finding(folder, unknown(folder, found) or outdated(run, found), len(sizes), sum(sizes))


def changed_whole(folder: Path, found: dict[str, Any]) -> str:
    """The first large file that has changed where it is not sampled."""
    for name, entry in found["outputs"].items():
        if "sha256" in entry and hash_file(folder / name) != entry["sha256"]:
            return f"{name} changed after it was written"
    return ""


def unknown(folder: Path, found: dict[str, Any]) -> str:
    """A file in the folder that the stage did not write."""
    more = [name for name in manifest.files_in(folder) if name not in found["outputs"]]
    return f"{key_of(found)} did not make {more[0]}; move it away" if more else ""


def mixed(run: RunDir) -> list[Path]:
    """Folders whose stages read something that was made anew since; reports are no part of it."""
    found = ((path.parent, manifest.read(path.parent)) for path in run.path.rglob(manifest.NAME))
    return [folder for folder, made in found
            if made and made["stage"] not in REPORTS and outdated(run, made)]  # fmt: skip


def told(folders: Sequence[str]) -> str:
    """What to say of stages that are `mixed`, by their folders; '' where there is none."""
    if not folders:
        return ""
    more = f" and {len(folders) - NAMED} more" if len(folders) > NAMED else ""
    return f"stages read other files than are there now ({', '.join(folders[:NAMED])}{more}); " \
           "make verify names them"  # fmt: skip


def outdated(run: RunDir, found: dict[str, Any]) -> str:
    """An input that has been made anew, or has gone, since the stage read it."""
    for name, entry in found["inputs"].items():
        path = input_path(run, name)
        if path is not None and not (path.exists() and manifest.fingerprint(path) == entry["hash"]):
            return f"{name} is not what {key_of(found)} read; the same make runs it again"
    return ""
