"""What notebook 08 calls: tables, figures, prompts and claims of a run, each beside the paper.

Whatever the run lacks is marked "not run". Files go to the stage's folder: `tables/`, `figures/`,
`prompts.md` and `.tex`, and `paper.md`, which shows them all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from psr_lib import (
    claims,
    curves,
    embedding,
    figures,
    ledger,
    maps,
    more_tables,
    paper_tables,
    presets,
    prompt_sheets,
    results,
    tables,
    unlike,
)
from psr_lib.evidence import GREEDY, JUDGE, Evidence, NotRun, sources
from psr_lib.memory import Memory
from psr_lib.methods import METHODS
from psr_lib.paper_tables import OURS
from psr_lib.records import IFTExample, JudgeExample, iter_jsonl, write_text
from psr_lib.run_details import Take

MAP = "figure2"
APART = "figure2_separation"
CAPTIONS = {
    "figure1": "Figure 1. The pipeline, with what went through each arrow in this run",
    MAP: "Figure 2. Prompts and responses of EFT, IFT and PPD by t-SNE",
    "methods": "Accuracy over the rounds, every method, 95 % intervals",
    "tokens": "Accuracy against tokens spent on pairs, and on an answer",
    "judge": "The judge over the rounds: held-out pairs, and its own siblings",
    "steps": "Number and length of steps over the rounds",
    "funnel": "From questions to preference pairs",
    "dpo": "Step-wise DPO: reward margins, log-probabilities of chosen and rejected steps",
}


def collect(stage: Any) -> tuple[Evidence, Memory]:
    """All that the run (or its seeds together) has measured, and what is remembered of it."""
    stage.holdings()
    return evidence_of(stage.run, stage.preset.rounds, stage.holding)


def evidence_of(run: Any, rounds: int, take: Take = lambda path: path) -> tuple[Evidence, Memory]:
    """The same of a run, or of its seeds together; `take` is told each file before it is read."""
    memory = Memory(run.path / "memory" / "paper.json")
    found = [results.gather(part, method, rounds, take)
             for part in run.parts for method in methods_in(part)]  # fmt: skip
    found += [results.gather_reference(part, take) for part in run.parts]
    return Evidence([one for one in found if one], memory), memory


def methods_in(run: Any) -> list[str]:
    """Methods that have a round of their own in the run; the paper's always, for what all share."""
    made = {path.parent.name for path in run.path.glob("*/M*") if path.is_dir()}
    return [name for name in METHODS if name in made or name == paper_tables.OURS]


def write_tables(stage: Any, evidence: Evidence) -> dict[str, tables.Table]:
    """Every table and the claim ledger, as CSV, Markdown and LaTeX, by name."""
    found = [*more_tables.make_all(evidence), ledger.table(claims.ledger(evidence), evidence)]
    for table in found:
        tables.write(table, stage.output("tables"))
    return {table.name: table for table in found}


def write_figures(stage: Any, evidence: Evidence, memory: Memory) -> dict[str, Path | str]:
    """Every figure as PNG, PDF and CSV; a path each, or why it could not be drawn."""
    points, apart = embedding.map_rows(stage, stage.run.parts[0], stage.preset.rounds, memory)
    folder, source = stage.output("figures"), source_of(evidence)
    folder.mkdir(parents=True, exist_ok=True)
    found = draw(evidence, points, apart, folder, source)
    memory.close()
    return found


def draw(
    evidence: Evidence, points: Sequence[dict], apart: Sequence[dict], folder: Path, source: str
) -> dict[str, Path | str]:
    """Draw what the evidence holds; by name, the PNG's path or what is missing."""
    makers: dict[str, tuple[Callable, Callable]] = {
        "figure1": (maps.flow_rows, maps.flow_figure),
        MAP: (lambda _: _some(points), lambda rows: maps.map_figure(rows, apart)),
        **curves.CURVES,
    }
    found: dict[str, Path | str] = {}
    for name, (take, make) in makers.items():
        try:
            rows = take(evidence)
        except NotRun as error:
            found[name] = f"not run: {error}"
            continue
        says, more = (of_map(evidence, source), {APART: apart}) if name == MAP else (source, {})
        says += unlike_in(evidence, rows) if name != MAP else ""
        found[name] = figures.save_fig(make(rows), folder, name, rows, says, more)
    return found


def unlike_in(evidence: Evidence, rows: Sequence[dict]) -> str:
    """For a figure's footer: the settings in which the runs differ that it shows; or ''."""
    named = {str(row.get("method", row.get("series"))) for row in rows}
    shown = [method for method in evidence.methods if method in named] or [OURS]
    ends = [(method, evidence.models(method)[-1]) for method in shown if evidence.models(method)]
    wanted = (GREEDY, JUDGE, "search")
    made_of = sources((method, model, what) for method, model in ends for what in wanted)
    found = unlike.short(evidence, made_of)
    return f"; {found}" if found else ""


def of_map(evidence: Evidence, source: str) -> str:
    """The map is of one run: where there are several seeds, the footer says whose."""
    seeds = {one["seed"] for one in evidence.all}
    return f"{source}; the map of one seed" if len(seeds) > 1 else source


def _some(rows: Sequence[dict]) -> Sequence[dict]:
    if not rows:
        raise NotRun("EFT, IFT and PPD rows")
    return rows


def source_of(evidence: Evidence) -> str:
    """What a figure's footer and metadata name: preset, seeds, and the runs' commits."""
    if not evidence.all:
        return "no run"
    numbers = sorted({one["seed"] for one in evidence.all})
    commits = sorted({(one["git"]["commit"] or "no commit")[:8] for one in evidence.all})
    seeds = f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    return f"{presets.title(evidence.all[0]['preset'])}, {seeds}, run at {', '.join(commits)}"


def write_prompts(stage: Any) -> str:
    """Figures 3 to 5 with the run's first examples, as Markdown and LaTeX; returns the Markdown."""
    data = stage.run.parts[0].data
    if not all((data / name).is_file() for name in ("ift.jsonl", "eft.jsonl")):
        return "Figures 3 to 5: not run (no data yet)\n"
    ift = next(iter_jsonl(stage.holding(data / "ift.jsonl"), IFTExample))
    eft = next(iter_jsonl(stage.holding(data / "eft.jsonl"), JudgeExample))
    found = prompt_sheets.sheets(stage.preset.prompts, ift, eft)
    write_text(stage.output("prompts.md"), prompt_sheets.markdown(found))
    write_text(stage.output("prompts.tex"), prompt_sheets.latex(found))
    return prompt_sheets.markdown(found)


def shown(found: dict[str, tables.Table], *names: str) -> str:
    """Some tables as Markdown, for a notebook's display."""
    return "\n".join(tables.markdown(found[name]) for name in names)


def show_figures(drawn: dict[str, Path | str]) -> None:
    """Display every figure under its caption; what could not be drawn says why."""
    from IPython.display import Markdown, display

    for name, path in drawn.items():
        display(Markdown(CAPTIONS[name]))
        display(figures.shown(path) if isinstance(path, Path) else Markdown(path))


def write_page(
    stage: Any, found: dict[str, tables.Table], drawn: dict[str, Path | str], evidence: Evidence
) -> None:
    """`paper.md`: claims, tables and figures in the paper's order on one page."""
    parts = [f"# {source_of(evidence)}\n", ledger.short(claims.ledger(evidence))]
    parts += [tables.markdown(table) for table in found.values()]
    for name, path in drawn.items():
        picture = f"![{name}](figures/{name}.png)" if isinstance(path, Path) else path
        parts.append(f"**{CAPTIONS[name]}**\n\n{picture}\n")
    write_text(stage.output("paper.md"), "\n".join(parts))


def counts(found: dict[str, tables.Table], drawn: dict[str, Path | str]) -> dict[str, int]:
    """How many tables and figures hold something of the run, of how many."""
    made = [path for path in drawn.values() if isinstance(path, Path)]
    filled = [table for table in found.values() if table.run]
    return {"tables": len(filled), "of_tables": len(found), "figures": len(made),
            "of_figures": len(drawn)}  # fmt: skip
