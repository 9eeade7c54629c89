"""`make report`: a run on one HTML page that can be mailed; nothing is loaded from anywhere else.

Tables and claims are computed from the run's results as notebook 08 does, figures are those that it
drew, examples come from the run's own searches and answers. The same run gives the same bytes.
"""

import base64
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from psr_lib import (
    claims,
    integrity,
    ledger,
    manifest,
    more_tables,
    paper,
    report_examples,
    report_runs,
    tables,
)
from psr_lib.claims import Finding
from psr_lib.evidence import GREEDY, Evidence, NotRun
from psr_lib.markup import chip
from psr_lib.presets import PROCEDURAL, Preset
from psr_lib.records import PSRError, write_text
from psr_lib.run_dirs import RunDir
from psr_lib.tables import Table

NAME, TEMPLATE = "report.html", "report.html"
LOOKS = {claims.REPLICATED: ("✓ replicated", "right"), claims.NOT: ("✗ not replicated", "wrong"),
         claims.INCONCLUSIVE: ("inconclusive", "tie")}  # fmt: skip


def write(run: RunDir, preset: Preset) -> Path:
    """Write the run's page into its folder.

    Raises PSRError where the run holds nothing yet, and where a file of it has changed.
    """
    made = report_runs.manifests(run)
    if not made:
        raise PSRError(f"{manifest.shown(run.path)}: nothing to report; run make reproduce first")
    integrity.check_all(run)
    path = run.path / NAME
    write_text(path, page(run, preset, made))
    return path


def page(run: RunDir, preset: Preset, made: Sequence[dict[str, Any]]) -> str:
    """The page as text."""
    evidence, _ = paper.evidence_of(run, preset.rounds)
    findings = claims.ledger(evidence)
    folder = Path(__file__).parent
    engine = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return engine.get_template(TEMPLATE).render(
        title=title_of(run), source=paper.source_of(evidence), not_run=tables.NOT_RUN,
        this_run=tables.RUN, laboratory=preset.data.source == PROCEDURAL,
        tiles=tiles(evidence, findings, made), claims=claims_of(findings),
        conditions=ledger.table(findings, evidence),
        examples=report_examples.examples(run.parts[0], preset),
        examples_of=str(run.parts[0].seed) if run.parts[1:] else "",
        cost=report_runs.cost(made), devices=report_runs.devices(made),
        provenance=report_runs.provenance(made), stages=report_runs.stage_rows(made),
        parameters=report_runs.parameters(made), **tables_of(more_tables.make_all(evidence)),
        **figures_of(run),
    )  # fmt: skip


def title_of(run: RunDir) -> str:
    """What the page is about."""
    seeds = [part.seed for part in run.parts]
    many = "s" if len(seeds) > 1 else ""
    return f"Process-based self-rewarding: {run.preset}, seed{many} {', '.join(map(str, seeds))}"


def tables_of(found: Sequence[Table]) -> dict[str, Any]:
    """Tables that hold something of the run, and the titles of the others."""
    return {"tables": [table for table in found if table.run],
            "missing_tables": [table.title for table in found if not table.run]}  # fmt: skip


def figures_of(run: RunDir) -> dict[str, Any]:
    """The figures of notebook 08 as data, and the captions of those that it could not draw."""
    paths = {run.paper / "figures" / f"{name}.png": text for name, text in paper.CAPTIONS.items()}
    drawn = [_figure(path.read_bytes(), text) for path, text in paths.items() if path.is_file()]
    missing = [text for path, text in paths.items() if not path.is_file()]
    return {"figures": drawn, "missing_figures": missing}


def _figure(picture: bytes, caption: str) -> dict[str, Any]:
    """A PNG as data; one that is far wider than high takes the page's width."""
    width, height = struct.unpack(">II", picture[16:24])  # of its header
    data = base64.b64encode(picture).decode("ascii")
    return {"caption": caption, "data": data, "wide": width > 1.6 * height}


def claims_of(findings: Sequence[Finding]) -> dict[str, Any]:
    """The short ledger, a row a claim, its verdict beside it: a phone shows two columns."""
    found = [dict(zip(ledger.SHORT, ledger.line(one), strict=True)) for one in findings]
    for row in found:
        row["verdict"] = chip(*LOOKS.get(row["verdict"], (row["verdict"], "plain")))
        row |= {name: tables.unbroken(row[name]) for name in ("effect", "95 % interval")}
    header = list(dict.fromkeys(("claim", "verdict", *ledger.SHORT)))
    return {"header": header, "rows": [[row[name] for name in header] for row in found]}


def tiles(
    evidence: Evidence, findings: Sequence[Finding], made: Sequence[dict[str, Any]]
) -> list[dict[str, str]]:
    """What is said first: the change of each method, the claims, the cost."""
    found = [tile for method in evidence.methods if (tile := _rise(evidence, method))]
    return [*found, _claims_tile(findings), report_runs.cost_tile(made)]


def _claims_tile(findings: Sequence[Finding]) -> dict[str, str]:
    counted = Counter(one.verdict for one in findings)
    good = counted.pop(claims.REPLICATED, 0)
    others = ", ".join(f"{count} {verdict}" for verdict, count in counted.items())
    return {"what": "claims of the paper, replicated", "value": f"{good} of {len(findings)}",
            "more": others}  # fmt: skip


def _rise(evidence: Evidence, method: str) -> dict[str, str] | None:
    """The mean greedy accuracy of a method's last model, and how far it is from its M1."""
    name = (evidence.models(method) or ["M0"])[-1]
    try:
        level = tables.measured(evidence.share((method, name, GREEDY)))
    except NotRun:
        return None
    more = f"95 % interval {tables.unbroken(level.interval)}{_change(evidence, method, name)}"
    return {"what": f"{method}: mean accuracy of {name}", "value": f"{level.shown} %", "more": more}


def _change(evidence: Evidence, method: str, name: str) -> str:
    if name in ("M0", "M1"):
        return ""
    try:
        found = evidence.change((method, "M1", GREEDY), (method, name, GREEDY))
    except NotRun:  # a round may be built without evaluating the one before it
        return ""
    moved = tables.measured(found, signed=True)
    return f"; {moved.shown} points from M1 {tables.unbroken(moved.interval)}"
