"""The numbers of the README's generated tables as items, with what each was computed from."""

import re
from collections.abc import Callable, Iterator, Sequence

from psr_lib import ablation_tables, claims, facts, manifest, readme, readme_costs, readme_speed
from psr_lib.evidence import GREEDY, JUDGE, Source, sources
from psr_lib.items import Item
from psr_lib.methods import MAIN, SEARCH, SRLM
from psr_lib.tables import item_name

PRESET = "tiny"
# Sources, the seeds of the kept runs, and which runs those are where they are not the laboratory's.
Found = tuple[tuple[Source, ...], tuple[int, ...], *tuple[str, ...]]
OF_FILES = {"secondary": "data/paper/secondary.csv", "speed": readme_speed.FILE,
            "contradictions": "data/paper/contradictions.csv"}  # fmt: skip


def of_readme(wanted: str = "") -> dict[str, Item]:
    """Every number in the README's generated tables, by name; sources of the one that is wanted."""
    text = (manifest.root() / "README.md").read_text(encoding="utf-8")
    blocks = [(match[2], match[0]) for match in readme.BLOCK.finditer(text)]
    found = (item for name, body in blocks for item in _items(name, cells(body), wanted))
    return {item.name: item for item in found}


def cells(text: str) -> list[list[str]]:
    """The rows of the Markdown tables in a text, headers first."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if not set("".join(row)) <= {"-"}]


def _items(block: str, table: Sequence[Sequence[str]], wanted: str) -> Iterator[Item]:
    if not table or block not in (*RULES, *OF_FILES):
        return
    header, *rows = table
    for k, row in enumerate(rows):
        names = [str(k + 1)] if block in OF_FILES else _names(block, k, row)
        for column, value in zip(header, row, strict=True):
            if column in header[: LABELS.get(block, 1)] or not re.search(r"\d", value):
                continue
            name = item_name("readme", block, *names, column)
            if block in OF_FILES or column == "the paper":
                file = OF_FILES.get(block, f"{facts.FOLDER}/{facts.CLAIMS}")
                yield Item(name, value, "README.md", file=file)
            elif column not in WORDS:
                found = RULES[block](*names, column) if name == wanted else ((), ())
                made_of, seeds, *kept = found
                yield Item(name, value, "README.md", made_of, seeds=seeds, kept=tuple(kept))


LABELS = {
    "ablations": 2,
    "accuracy": 2,
    "budget": 2,
    "presets": 2,
}  # how many columns name a row, where it is not one
WORDS = ("what decides it", "verdict", "starts from", "measured")


def _names(block: str, k: int, row: Sequence[str]) -> list[str]:
    return [facts.claims()[k]["id"]] if block == "claims" else list(row[: LABELS.get(block, 1)])


def _kept(*methods: str) -> tuple[int, ...]:
    """The seeds of which a summary of each method is kept."""
    seeds = [{one["seed"] for one in readme.summaries(method)} for method in methods]
    return tuple(sorted(set.intersection(*seeds)))


def _first(source: Source) -> Found:
    return (source,), _kept(MAIN)[:1]


def _accuracy(method: str, seed: str, model: str) -> Found:
    return (Source(method, model, GREEDY),), (int(seed),)


def _budget(seed: str, model: str, _: str) -> Found:
    return (Source(SRLM, model, SEARCH), Source(MAIN, model, SEARCH)), (int(seed),)


def _cost(stage: str, _: str) -> Found:
    names = [name for name, short in readme_costs.SHORT.items() if stage in (short, "all")]
    return tuple(Source(MAIN, "", name) for name in names), _kept(MAIN)[:1]


def _presets(name: str, *_: str) -> Found:
    seeds = [one["seed"] for one in readme_costs.summaries(MAIN, name)]
    return _cost("all", "")[0], tuple(seeds[:1]), name


def _ablations(knob: str, shown: str, column: str) -> Found:
    """Of the runs of one value; a change is from the runs of the base value too."""
    value = shown.removesuffix(ablation_tables.OWN)
    loaded = ((path, ablation_tables.load(path)[0]) for path in ablation_tables.kept(PRESET))
    path, grid = next((path, grid) for path, grid in loaded
                      if grid.title == knob and value in grid.values)  # fmt: skip
    change = column in ("change", "95 % interval of it")
    file = path.relative_to(manifest.root()).as_posix()
    kept = [f"{file}={one}" for one in ((grid.base, value) if change else (value,))]
    whats = {"judge (%)": JUDGE, "pairs": SEARCH}
    models = range(2, grid.n + 1) if column == "pairs" else (grid.n,)
    made_of = [Source(grid.method, f"M{n}", whats.get(column, GREEDY)) for n in models]
    return tuple(made_of), grid.seeds, *kept


def _tests(name: str, _: str) -> Found:
    before, after = readme.differences(readme.kept_evidence())[name]
    return sources([before, after]), _kept(before[0], after[0])


def _claims(id: str, _: str) -> Found:
    finding = next(one for one in claims.ledger(readme.kept_evidence()) if one.id == id)
    made_of = finding.effect.found.sources if finding.effect and finding.effect.found else ()
    return made_of, _kept(*{source.method for source in made_of}) if made_of else ()


RULES: dict[str, Callable[..., Found]] = {
    "ablations": _ablations, "accuracy": _accuracy, "budget": _budget, "cost": _cost,
    "presets": _presets, "tests": _tests, "claims": _claims,
    "judge": lambda model, _: _first(Source(MAIN, model, JUDGE)),
    "search": lambda model, _: _first(Source(MAIN, model, SEARCH)),
}  # fmt: skip
