"""`make plan`: what a run costs before anything runs: tokens, hours, memory, disk, API calls.

Nothing is refused and nothing is written. A number that was not measured says what it rests on; a
device that cannot hold the run is one line of warning.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psr_lib import (
    architectures,
    durations,
    fitting,
    footprint,
    machines,
    plan_check,
    rate_table,
    shipped,
    spread,
    workload,
)
from psr_lib.architectures import Architecture
from psr_lib.durations import Duration
from psr_lib.expected import LARGE, Expected
from psr_lib.fitting import Use
from psr_lib.footprint import Parts
from psr_lib.machines import GIB, Machine
from psr_lib.presets import Preset
from psr_lib.rate_table import Rate
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import stage_preset
from psr_lib.teacher_bill import bills
from psr_lib.work import Case, Work, case_of


@dataclass(frozen=True)
class Plan:
    """The parts of a run with their model and duration, and what they were counted from."""

    case: Case
    machine: Machine
    parts: list[tuple[Work, Architecture, Duration]]

    @property
    def works(self) -> list[Work]:
        """The parts alone."""
        return [work for work, _, _ in self.parts]


def make(
    preset: Preset, run: RunDir, keys: Iterable[Key], machine: Machine,
    rates: Sequence[Rate] | None = None,
) -> Plan:  # fmt: skip
    """The plan of these stages of a run on a machine, by the rates of the table (or those given).

    Raises PSRError where the model's configuration is not at hand, or the launch's.
    """
    rates = rate_table.load() if rates is None else rates
    machine = spread.reached(preset, machine)
    spread.training(preset.train, machine)  # its configuration is found wanting here
    own = architectures.of(preset.model.base)
    ships = preset.data.eft_from == "chain" and bool(shipped.ahead(preset, run))
    case, parts = case_of(preset, own.parameters >= LARGE, shipped=ships), []
    for one in workload.of_stages(case, keys):
        model = architectures.of(one.base) if one.base else own
        seen = stage_preset(preset, one.key)
        parts.append((one, model, durations.of(one, seen, model, machine, rates)))
    return Plan(case, machine, parts)


def printed(preset: Preset, method: str, run: RunDir, keys: Iterable[Key], on: str = "") -> str:
    """What `make plan` prints for these stages on the machine that `on` names, '' for this one.

    On a named machine nothing of this one is in it but the answers that were paid for.

    Raises PSRError where the model's configuration is not at hand, or the device is unknown.
    """
    found = make(preset, run, keys, machines.named(on))
    return "\n".join(filter(None, [text(found, run, method), plan_check.line(preset.name)]))


def text(plan: Plan, run: RunDir, method: str) -> str:
    """The whole plan as it is printed."""
    head = (f"plan of {method}, preset {plan.case.preset.name}, seed {run.seed}, "
            f"on {plan.machine}; nothing was run")  # fmt: skip
    device = f"{plan.machine.name}, {plan.machine.memory / GIB:,.0f} GiB"
    blocks = {
        f"memory of one device ({device})": memory_lines(plan),
        "disk": disk_lines(plan, run),
        "paid calls": bills(plan.case, run, plan.works) or ["none"],
        "where the numbers come from": source_lines(plan),
    }
    below = [line for head, lines in blocks.items()
             for line in (head, *(f"  {line}" for line in lines))]  # fmt: skip
    return "\n".join([head, *hour_lines(plan), *below, *warning_lines(plan, run)])


# ------------------------------------------------------------------------------------ hours


COLUMNS = {"generated": "generated", "judged": "judged", "most": "if all differ", "read": "read",
           "trained": "trained"}  # fmt: skip


def hour_lines(plan: Plan) -> list[str]:
    """A row a part: tokens and hours; then which hours were not measured, and why."""
    head = ["stage", "part", *COLUMNS.values(), _unit(plan), "assumed"]
    rows = [_row(str(work.key), work, duration) for work, _, duration in plan.parts]
    table = _aligned([head, *rows, _totals(plan)])
    lacking = {
        durations.missing(work, stage_preset(plan.case.preset, work.key), model, plan.machine)
        for work, model, duration in plan.parts if duration.measured is None
    }  # fmt: skip
    assumed = any(d.measured is None and d.assumed is not None for _, _, d in plan.parts)
    used = {str(duration.rate) for _, _, duration in plan.parts if duration.rate}
    notes = [*sorted(used), *sorted(lacking), *([durations.assumption()] if assumed else [])]
    return [*table, *notes, *_spread(plan)]


def _unit(plan: Plan) -> str:
    return "GPU hours" if plan.machine.device == "cuda" else "hours"


def _row(name: str, work: Work, duration: Duration) -> list[str]:
    tokens = [getattr(work, name) for name in COLUMNS]
    measured = "not measured" if duration.measured is None else _hours(duration.measured)
    guess = duration.assumed if duration.measured is None else None
    return [name, work.what, *map(amount, tokens), measured, _hours(guess)]


def _totals(plan: Plan) -> list[str]:
    """Sums; of the measured hours only where every part was measured."""
    columns = [[getattr(work, name) for work in plan.works] for name in COLUMNS]
    measured = _total(duration.measured for _, _, duration in plan.parts)
    best = _total(duration.hours for _, _, duration in plan.parts)
    known = "not measured" if measured is None else _hours(measured)
    rest = _hours(best) if measured is None else ""
    return ["all", "", *(amount(sum(column)) for column in columns), known, rest]


def _total(hours: Iterable[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    known = list(hours)
    found = [one for one in known if one is not None]
    return sum(found) if len(found) == len(known) else None


def _spread(plan: Plan) -> list[str]:
    """Hours on several devices; each part is done by those that it is spread over."""
    hours = _total(
        None
        if duration.hours is None
        else duration.hours / spread.devices(work, plan.case.preset, plan.machine)
        for work, _, duration in plan.parts
    )
    if plan.machine.count < 2 or hours is None:
        return []
    return [f"on {plan.machine.count} devices {_hours(hours)} hours, if each part spreads evenly "
            "over those that work on it"]  # fmt: skip


def _hours(hours: float | None) -> str:
    return "" if hours is None else _digits(hours)


def _digits(number: float) -> str:
    """Three digits, or all before the point.

    >>> _digits(0.01234), _digits(1234.5)
    ('0.0123', '1,234')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def amount(tokens: float) -> str:
    """Tokens in words, '' for none.

    >>> amount(0), amount(950), amount(12_345), amount(3_210_000)
    ('', '950', '12.3 k', '3.2 M')
    """
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:,.1f}{sign}"
    return f"{tokens:.0f}" if tokens else ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    sides = ["<", "<", *">" * (len(widths) - 2)]
    cells = [[f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]


# ------------------------------------------------------------------------------------ memory, disk


def uses(plan: Plan) -> dict[str, Use]:
    """What holds memory, by name."""
    return fitting.uses(plan.parts, plan.case.preset, plan.machine)


def memory(plan: Plan) -> dict[str, tuple[Parts, float]]:
    """The same in bytes: the parts of each, and what they may take together."""
    return {name: use.size(use.preset) for name, use in uses(plan).items()}


def memory_lines(plan: Plan) -> list[str]:
    """One line for each use of a device: its parts and their sum, in GiB."""
    models = {model.name: model for _, model, _ in plan.parts}.values()
    lines = [f"{m.name}: {m.parameters:,} parameters (configuration: {m.source})" for m in models]
    for name, (parts, room) in memory(plan).items():
        most = f" of {_size(room)}" if room < plan.machine.memory else ""
        lines.append(f"{name}: {_sum(parts)}{most}" if parts else f"{name}: held elsewhere")
    return lines + _sharing(plan) + host_lines(plan)


def _sharing(plan: Plan) -> list[str]:
    """What of a training is on each device, and what is kept free of it."""
    how, lines = plan.case.preset.train, []
    if plan.machine.count > 1 and any(work.section for work in plan.works):
        together = spread.training(how, plan.machine)
        held = f"shared by {together.processes} devices" if together.divided else "whole on each"
        lines = [f"weights, gradients and Adam are {held} (train.launch={how.launch})"]
    if plan.machine.device == "cuda":
        lines.append(f"{_size(footprint.RESERVE)} of each device is left to CUDA's context, NCCL "
                     "and fragments: assumed, not measured")  # fmt: skip
    return lines


def host_lines(plan: Plan) -> list[str]:
    """A line for each training that is divided: what it takes of a node's own memory."""
    return [f"memory of each node itself, training by {section}: {_sum(parts)}"
            for section, parts in _host(plan).items()]  # fmt: skip


def _host(plan: Plan) -> dict[str, Parts]:
    """What each divided training takes of a node's own memory, by section."""
    if not spread.training(plan.case.preset.train, plan.machine).divided:
        return {}
    return {work.section: footprint.host(model, work.section)
            for work, model, _ in plan.parts if work.section}  # fmt: skip


def _sum(parts: dict[str, float]) -> str:
    terms = " + ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return f"{terms} = {_size(sum(parts.values()))}"


def _size(size: float) -> str:
    """Bytes in words.

    >>> _size(2**20 * 3.14159), _size(2**30 * 1234)
    ('3.14 MiB', '1,234 GiB')
    """
    number, unit = (size / GIB, "GiB") if size >= GIB / 10 else (size / 2**20, "MiB")
    return f"{_digits(number)} {unit}"


def disk_lines(plan: Plan, run: RunDir) -> list[str]:
    """What the run leaves on the disk, and what is free there."""
    parts = _disk(plan)
    free = f", {_size(_free(run))} free here" if plan.machine.at_hand else ""
    return [f"{_sum(parts)}{free}"]


def _disk(plan: Plan) -> dict[str, float]:
    return footprint.disk([(work, model) for work, model, _ in plan.parts], plan.case.preset)


def _free(run: RunDir) -> int:
    """Free bytes where the run will lie; its folder need not be there yet."""
    place = next(folder for folder in (run.path, *run.path.parents) if folder.exists())
    return shutil.disk_usage(place).free


# ------------------------------------------------------------------------------------ words


def source_lines(plan: Plan) -> list[str]:
    """Every number that no setting gives: of which models it was taken, and its source.

    The models are those that the parts were counted by: M[n-1] searches and makes the pairs for
    M[n], and what the policy of the tree search writes is counted as M1's.
    """
    models: dict[tuple[str, str], list[str]] = {}
    for n, model in sorted(plan.case.model.items()):
        for source, names in _by_source(model).items():
            models.setdefault((", ".join(names), source), []).append(f"M{n}")
    lines = [f"{', '.join(of)}: {names}; {source}" for (names, source), of in models.items()]
    question = plan.case.rows.question
    lines.append(f"tokens of a question {_digits(question.value)}; {question.source}")
    unknown = [name for name, size in workload.sizes(plan.case.preset).items() if not size]
    return lines + [f"{name}: its size is not known, counted as 0" for name in unknown]


def _by_source(model: Expected) -> dict[str, list[str]]:
    """What is expected of a model, in words, by where it is from."""
    found: dict[str, list[str]] = {}
    for name, fact in vars(model).items():
        found.setdefault(fact.source, []).append(f"{NAMES[name]} {_digits(fact.value)}")
    return found


NAMES = {
    "steps": "steps of a solution", "step_tokens": "tokens of a step",
    "visits": "visits a step", "asked": "share of ordered pairs judged",
    "pairs": "pairs a visit", "verdict_tokens": "tokens of a verdict",
    "sampled": "share of a tree's steps sampled", "siblings": "sibling pairs an iteration",
}  # fmt: skip


def warning_lines(plan: Plan, run: RunDir) -> list[str]:
    """One line if the machine cannot hold the run, with what would help; one for each use that
    leaves devices idle."""
    large = [use for use in uses(plan).values() if not use.fits()]
    short = [f"{use.name} takes {_of(*use.size(use.preset))}" for use in large]
    advice = [fitting.devices(plan.parts, plan.case.preset, plan.machine)] if large else []
    advice += [way for use in large for way in fitting.ways(use, plan.machine)]
    if plan.machine.at_hand:
        for words, way in _short_here(plan, run).items():
            short.append(words)
            advice.append(way)
    take = ", or ".join(dict.fromkeys(advice))
    found = [f"warning: {plan.machine} cannot hold this: {', '.join(short)}; take {take}"]
    idle = spread.idle_lines(plan.works, plan.case.preset, plan.machine)
    return (found if short else []) + idle


def _short_here(plan: Plan, run: RunDir) -> dict[str, str]:
    """What this machine's disk and its own memory lack, and what would help."""
    found, size = {}, sum(_disk(plan).values())
    if size > _free(run):
        found[f"the disk takes {_size(size)} of {_size(_free(run))}"] = "a larger disk"
    host = max((sum(parts.values()) for parts in _host(plan).values()), default=0)
    if host > machines.host_memory():
        words = f"the node's own memory takes {_size(host)} of {_size(machines.host_memory())}"
        found[words] = "nodes with more memory"
    return found


def _of(parts: Parts, room: float) -> str:
    return f"{_size(sum(parts.values()))} of {_size(room)}"
