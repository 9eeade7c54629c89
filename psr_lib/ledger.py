"""The claim ledger as a table, and as the short one that stands on the front page."""

from collections.abc import Sequence

from psr_lib import tables, unlike
from psr_lib.claims import Checked, Finding
from psr_lib.evidence import Evidence
from psr_lib.paper_tables import notes
from psr_lib.tables import RUN, Cell, Panel, Table, text

SHORT = ("claim", "the paper", "effect", "95 % interval", "verdict", "what decides it")


def table(findings: Sequence[Finding], evidence: Evidence) -> Table:
    """Every condition of every claim: region, estimate, whether it holds, and the verdict."""
    rows = [
        (text(one.id if k == 0 else " "), text(one.verdict if k == 0 else " "), text(part.what),
         text(f"{part.region} {part.unit}"), _cell(part), text(part.state))
        for one in findings for k, part in enumerate(one.checked or (_NOTHING,))
    ]  # fmt: skip
    header = ("claim", "verdict", "quantity", "region", "estimate", "state")
    says = tuple(f"{one.id}: {one.claim}. {one.paper}{pooled(one)}" for one in findings)
    title = "Claims. What the paper says, tested as written in data/paper/claims.yaml"
    names = tuple((one.id, part.what) for one in findings for part in one.checked or (_NOTHING,))
    panel = Panel(RUN, header, tuple(rows), labels=3, names=names)
    return unlike.noted(Table("claims", title, (panel,), notes(evidence, 0, says)), evidence)


def pooled(one: Finding) -> str:
    """What to say of a claim that is tested on several benchmarks together."""
    ends = dict.fromkeys(
        part.what.rpartition(" on ")[2] for part in one.checked if " on " in part.what
    )
    found = [end for end in ends if end == "average" or " and " in end]
    if not found:
        return ""
    of = "all benchmarks" if found[0] == "average" else found[0]
    return f". Pooled: the mean over {of}, each counted alike"


_NOTHING = Checked("–", "–", "", "not applicable")


def _cell(part: Checked) -> Cell:
    if part.found is None:
        return text("–") if part is _NOTHING else Cell()
    return tables.measured(part.found, digits=2 if part.unit in ("steps", "tokens") else 1)


def short(findings: Sequence[Finding]) -> str:
    """A Markdown table with a line a claim."""
    rows = [line(one) for one in findings]
    return tables.grid(SHORT, [[*row[:4], f"**{row[4]}**", row[5]] for row in rows])


def line(one: Finding) -> list[str]:
    """A claim as the cells of `SHORT`."""
    effect, interval = "–", "–"
    if one.effect is not None and one.effect.found is not None:
        signed = one.effect.unit != "%" or "change" in one.effect.what
        cell = tables.measured(one.effect.found, signed=signed)
        effect, interval = f"{cell.shown} {one.effect.unit}", cell.interval
    return [one.claim, one.paper, effect, interval, one.verdict, one.decides or "–"]
