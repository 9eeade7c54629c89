"""`make why`: the chain of stages, parameters, prompts, commits and seeds behind one number."""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import PurePath
from typing import Any

from psr_lib import integrity, items, lineage, manifest, readme_items, readme_speed, results
from psr_lib.items import Item
from psr_lib.lineage import Made, Record
from psr_lib.origins import artifacts, missing
from psr_lib.records import read_json
from psr_lib.run_dirs import RunDir

README = "readme/"
SHORT = 12  # digits of a hash that are shown
State = Callable[[str], str]  # what is wrong now with the stage of a folder, '' if nothing


def known(run: RunDir, wanted: str = "") -> dict[str, Item]:
    """Every item of a run's tables and of the README; where one is wanted, those beside it alone.

    The tables of the stages themselves are known to who asks for one of them.
    """
    if beside := items.of_stage(run, wanted):
        return beside
    ours = readme_items.of_readme(wanted) if wanted.startswith(README) or not wanted else {}
    return ours if wanted.startswith(README) else {**items.of_tables(run), **ours}


def listing(run: RunDir) -> list[str]:
    """The names of all items, a line a row of a table."""
    found = known(run)
    lines = items.listed(found)
    if all(name.startswith(README) for name in found):
        lines.append(f"{manifest.shown(run.paper)}: no tables yet; make paper writes them")
    return [*lines, "", f"make why ITEM={next(iter(found))} tells where that number comes from",
            "and ITEM=psrlm/M2/eval/accuracy/<row>/<column> of a stage's own table"]  # fmt: skip


def explain(run: RunDir, name: str) -> list[str]:
    """Where a number comes from. Raises PSRError that suggests the nearest where it is unknown."""
    item = items.find(known(run, name), name)
    head = [f"{item.name} = {item.shown}", f"  in    {item.place}{_table_by(run, item)}"]
    if item.file:
        return [*head, f"  from  {item.file}: {_of_file(item.file)}"]
    if item.sources:
        head.append(f"  from  {', '.join(map(str, item.sources))}")
    tell = _kept if name.startswith(README) else _from_run
    if tell is _from_run and not item.folder and (wrong := _table_now(run)):
        head.append(f"  NOW   {wrong}; until then what follows need not be what was counted")
    return head + [line for seed in _seeds(run, item) for line in tell(run, item, seed)]


def _seeds(run: RunDir, item: Item) -> tuple[int, ...]:
    return item.seeds or tuple(part.seed for part in run.parts)


def _from_run(run: RunDir, item: Item, seed: int) -> Iterator[str]:
    """The chain of one seed, from the manifests of its run."""
    part = next(part for part in run.parts if part.seed == seed)
    made = lineage.records(part)
    stale = lambda folder: _now(part, folder, made[folder])  # noqa: E731
    yield from _told(part, item, made, lineage.settings, stale, f"seed {seed}")


def _of_file(file: str) -> str:
    """What a file's numbers are that no run has made."""
    if file == readme_speed.FILE:
        return "measured by make bench, which wrote when, by which commit and with which options"
    return "the paper's own number, as it is printed there"


def _table_by(run: RunDir, item: Item) -> str:
    """Which stage wrote the table of a run that the number stands in, when and at which commit."""
    home = run.path / item.folder if item.folder else run.paper
    made = None if item.name.startswith(README) else manifest.read(home)
    return f", by {integrity.key_of(made)}, {_made(made)}" if made else ""


def _table_now(run: RunDir) -> str:
    """What has been made anew since the tables were made of it."""
    made = manifest.read(run.paper)
    return integrity.outdated(run, made) if made else ""


def _now(run: RunDir, folder: str, one: Record) -> str:
    return integrity.fault_of(run, run.path / folder, one) or integrity.outdated(run, one)


def _kept(run: RunDir, item: Item, seed: int) -> Iterator[str]:
    """The chain of one seed of the README, from the kept summaries."""
    kinds = dict.fromkeys(source.method for source in item.sources)
    for method, name in product(kinds, item.kept or (readme_items.PRESET,)):
        one, where = _summary(name, seed, method)
        part = RunDir(one["preset"], seed, run.root)
        found = one.get("provenance")
        if found is None:
            commit = (one["git"]["commit"] or "no commit")[:SHORT]
            yield ""
            yield f"{where}: commit {commit}, parameters {one['params_hash']}; kept before the"
            again = "keep-ablation" if "=" in name else "keep"
            yield f"hashes of its stages were; make {again}, where its run still lies, adds them"
            continue
        own = item._replace(sources=tuple(s for s in item.sources if s.method == method))
        kept = partial(_chosen, found["settings"])
        yield from _told(part, own, found["stages"], kept, lambda folder: "", where)


def _summary(name: str, seed: int, method: str) -> tuple[Record, str]:
    """A kept summary by `Item.kept`, and where it stands."""
    file, _, value = name.partition("=")
    if not value:
        path = f"{results.FOLDER}/{name}/seed{seed}/{method}.json"
        return results.load(name, seed, method), f"seed {seed}, {path}"
    found = read_json(manifest.root() / file)["runs"]
    one = next(one for one in found if (one["value"], one["seed"]) == (value, seed))
    return one, f"seed {seed}, value {value}, {file}"


def _chosen(settings: Record, made: Iterable[Record]) -> Record:
    """Those of a summary's parameters that these stages have read."""
    names = {name for one in made for name in lineage.sections(one)}
    return {name: value for name, value in settings.items() if name.partition(" in ")[0] in names}


def _told(
    run: RunDir, item: Item, made: Made, settings: Callable, state: State, label: str
) -> Iterator[str]:
    """The chain of the item's sources in one run, then the parameters of its stages."""
    own = [(item.folder, PurePath(item.place).name)] if item.folder else []
    found = own or [pair for source in item.sources for pair in artifacts(run, source, made)]
    if found and (lacking := missing(run, item.sources, made)):
        yield from ("", f"{label}: no part of it, as there is no {', '.join(lacking)}")
        return
    files = ", ".join(dict.fromkeys(f"{folder}/{name or manifest.NAME}" for folder, name in found))
    yield ""
    yield f"{label}: {files or 'nothing of it was made'}"
    folders = lineage.chain(made, (folder for folder, _ in found))
    for folder in folders:
        yield from _stage(folder, made[folder], state(folder))
    if folders:
        yield from ("", "parameters")
        for name, value in settings(made[folder] for folder in folders).items():
            yield f"  {name:<9} {_flat(value)}"


def _stage(folder: str, one: Record, wrong: str) -> Iterator[str]:
    yield ""
    yield f"{integrity.key_of(one)!s:<24} {folder}"
    hashes = lineage.templates(one)
    yield f"  made     {_made(one)} on {one.get('device', '')}"
    yield f"  params   {one.get('params_hash', '')[:SHORT]}: {', '.join(lineage.sections(one))}"
    if hashes:
        yield f"  prompts  {_hashes(hashes.items())}"
    for word, side in (("read", "inputs"), ("wrote", "outputs")):
        if shown := _hashes(_files(one[side])):
            yield f"  {word:<8} {shown}"
    if wrong:
        yield f"  NOW      {wrong}"


def _made(one: Record) -> str:
    """When, and by which commit."""
    git = one["git"]
    commit = (git["commit"] or "no commit")[:SHORT] + (" with changes" if git["dirty"] else "")
    return f"{one.get('started', '')} at {commit}"


def _files(entries: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, entry in entries.items():
        if not name.startswith("figures/"):
            yield name.removeprefix("run:"), entry if isinstance(entry, str) else entry["hash"]


def _hashes(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {lineage.short(text, SHORT)}" for name, text in pairs)


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
