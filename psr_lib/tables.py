"""Tables with intervals, as Markdown, LaTeX (booktabs), CSV and a notebook's display.

A table has panels: what this run measured, and the paper's own numbers. Panels with the same header
are set as one. A cell that was not measured says so.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from psr_lib.records import write_text
from psr_lib.seeds import Estimate

NOT_RUN = "not run"
NO_BREAK = "\N{NO-BREAK SPACE}"
SPECIAL = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
           "→": r"$\rightarrow$", "−": r"$-$", "±": r"$\pm$", "×": r"$\times$", "–": "--",
           "Δ": r"$\Delta$"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number with its interval, or a text; `value` None and no text: not run.

    `sources` names what it was computed from; a number of the paper names its file.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str = ""
    digits: int = 1
    signed: bool = False
    over: str = ""
    sources: tuple = ()

    @property
    def shown(self) -> str:
        """The number or the text, without an interval."""
        if self.value is None:
            return self.text or NOT_RUN
        return number(self.value, self.digits, self.signed)

    @property
    def interval(self) -> str:
        """The interval in brackets, '' where there is none."""
        if self.value is None or self.low is None or self.high is None:
            return ""
        ends = (number(end, self.digits, self.signed) for end in (self.low, self.high))
        return f"[{', '.join(ends)}]"


@dataclass(frozen=True)
class Panel:
    """Rows under one header; the first `labels` columns name a row. `source` says whose numbers.

    `names` are the rows' names as items, where their labels repeat or are blank.
    """

    source: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    names: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the paper, or one that goes beyond it."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def run(self) -> bool:
        """Whether any number of this run is in it."""
        cells = (cell for panel in self.panels if panel.source == RUN for row in panel.rows
                 for cell in row)  # fmt: skip
        return any(cell.value is not None for cell in cells)


RUN = "this run"


def number(value: float, digits: int, signed: bool = False) -> str:
    """A number with fixed digits; the minus is a real one, and there is no -0.0."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")


def text(value: str) -> Cell:
    """A label."""
    return Cell(text=value)


def printed(value: str, table: int) -> Cell:
    """A number as the paper prints it in one of its tables."""
    return Cell(text=value, sources=(f"data/paper/table{table}.csv",) if value.strip(" –") else ())


def measured(found: Estimate | None, digits: int = 1, signed: bool = False) -> Cell:
    """An estimate as a cell."""
    if found is None:
        return Cell()
    return Cell(found.value, found.low, found.high, digits=digits, signed=signed, over=found.over,
                sources=found.sources)  # fmt: skip


def markdown(table: Table) -> str:
    """The table as Markdown: title, a table a panel, notes."""
    parts = [f"**{table.title}**\n"]
    for panel in table.panels:
        rows = [[_plain(cell) for cell in row] for row in panel.rows]
        parts.append(f"{panel.source}:\n\n{grid(panel.header, rows)}")
    parts += [f"- {note}\n" for note in table.notes]
    return (
        "\n".join(parts[: 1 + len(table.panels)]) + "\n" + "".join(parts[1 + len(table.panels) :])
    )


def _plain(cell: Cell) -> str:
    shown = unbroken(cell.shown) if cell.shown.startswith("<") else cell.shown  # p < 0.001
    return " ".join(filter(None, (shown, unbroken(cell.interval))))


def unbroken(text: str) -> str:
    """A text that is not broken into lines, such as an interval in a narrow column."""
    return text.replace(" ", NO_BREAK)


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(_unbarred(line))} |\n" for line in lines)


def _unbarred(line: Iterable[str]) -> list[str]:
    return [cell.replace("|", r"\|") for cell in line]


def escape(value: str) -> str:
    """A text for LaTeX."""
    return "".join(SPECIAL.get(sign, sign) for sign in value)


def latex(table: Table) -> str:
    """The table as a LaTeX float with booktabs rules; panels share it, each with its header."""
    body = "\n\\medskip\n\n".join(_tabular(panel) for panel in table.panels)
    notes = " ".join(table.notes)
    note = (
        f"\n\\par\\smallskip\\parbox{{\\linewidth}}{{\\scriptsize {escape(notes)}}}"
        if notes
        else ""
    )
    return (
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}\n"
        "\\begin{table}\n\\centering\\small\n"
        f"\\caption{{{escape(table.title)}}}\n\\label{{tab:{table.name}}}\n"
        f"{body}{note}\n\\end{{table}}\n"
    )


def _tabular(panel: Panel) -> str:
    columns = "l" * panel.labels + "r" * (len(panel.header) - panel.labels)
    head = " & ".join(map(escape, panel.header))
    rows = "\n".join(" & ".join(map(_tex, row)) + r" \\" for row in panel.rows)
    span = f"\\multicolumn{{{len(panel.header)}}}{{l}}{{\\emph{{{escape(panel.source)}}}}} \\\\"
    lines = [r"\toprule", span, r"\midrule", head + r" \\", r"\midrule", rows, r"\bottomrule"]
    inner = "\n".join(lines)
    tabular = f"\\begin{{tabular}}{{{columns}}}\n{inner}\n\\end{{tabular}}"
    fitted = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
    return f"\\resizebox{{{fitted}}}{{!}}{{%\n{tabular}}}"


def _tex(cell: Cell) -> str:
    small = f" {{\\scriptsize {escape(cell.interval)}}}" if cell.interval else ""
    return escape(cell.shown) + small


COLUMNS = ("table", "source", "row", "column", "value", "low", "high", "over", "text", "item",
           "sources")  # fmt: skip
SIGNS = {"×": "x", "−": "minus", "→": "to", "%": "percent", "Avg.": "average", "<": "below"}


def rows(table: Table) -> list[dict[str, str]]:
    """A row a cell; numbers unrounded, so that the CSV can be computed with."""
    found = []
    for panel in table.panels:
        for k, row in enumerate(panel.rows):
            labels = [cell.shown for cell in row[: panel.labels] if cell.shown.strip()]
            place = {"table": table.name, "source": panel.source, "row": " ".join(labels)}
            parts = [table.name, *([] if panel.source == RUN else ["paper"])]
            parts += panel.names[k] if panel.names else labels
            pairs = zip(panel.header[panel.labels :], row[panel.labels :], strict=True)
            found += [{**place, "column": name, **_flat(cell), "item": item_name(*parts, name)}
                      for name, cell in pairs]  # fmt: skip
    return found


def _flat(cell: Cell) -> dict[str, str]:
    ends = {k: "" if v is None else repr(float(v)) for k, v in
            (("value", cell.value), ("low", cell.low), ("high", cell.high))}  # fmt: skip
    return {**ends, "over": cell.over, "text": cell.shown if cell.value is None else "",
            "sources": " ".join(map(str, cell.sources))}  # fmt: skip


def item_name(*parts: str) -> str:
    """How `make why` names a cell: table, labels of its row, column.

    >>> item_name("table5", "M1", "search − greedy"), item_name("table1", "psrlm", "M4", "Avg.")
    ('table5/M1/search-minus-greedy', 'table1/psrlm/M4/average')
    """
    for sign, word in SIGNS.items():
        parts = tuple(part.replace(sign, f" {word} ") for part in parts)
    return "/".join(filter(None, ("-".join(re.findall(r"[\w+.]+", part)) for part in parts)))


def write(table: Table, folder: Path) -> None:
    """Write `<name>.csv`, `.md` and `.tex` into a folder."""
    out = StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(table))
    for kind, content in (("csv", out.getvalue()), ("md", markdown(table)), ("tex", latex(table))):
        write_text(folder / f"{table.name}.{kind}", content)
