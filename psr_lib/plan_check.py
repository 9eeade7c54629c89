"""How far plans are off: the tokens of a kept run beside those planned without looking at it."""

from dataclasses import dataclass
from typing import Any

from psr_lib import presets, results, workload
from psr_lib.methods import MAIN
from psr_lib.run_dirs import Key
from psr_lib.work import Work, case_of


@dataclass(frozen=True)
class Row:
    """Planned and recorded tokens of a stage; `kind` is generated, judged, or read in a search."""

    stage: str
    kind: str
    planned: float
    recorded: float

    @property
    def factor(self) -> float:
        """How far apart, 1 or more, whichever is the larger."""
        return max(self.planned, self.recorded) / min(self.planned, self.recorded)


def rows(summary: dict[str, Any]) -> list[Row]:
    """A row a stage and kind that recorded tokens, planned from the kept runs of other seeds.

    Raises PSRError where no other seed is kept.
    """
    preset = presets.load(summary["preset"])
    case = case_of(preset, skip={summary["seed"]})
    found = []
    for made in summary["stages"]:
        key = Key(made["stage"], made["method"], made["iteration"])
        works = workload.of_stages(case, [key])
        read = {"read": made["counts"].get("prefill_tokens")}
        for kind, recorded in (made["tokens"] | read).items():
            if recorded and (planned := _sum(works, kind)):
                found.append(Row(str(key), kind, planned, recorded))
    return found


def _sum(works: list[Work], kind: str) -> float:
    return sum(getattr(work, kind) for work in works)


def line(preset: str) -> str:
    """How far the plan of a preset is off its first kept run; '' where two seeds are not kept."""
    seeds = sorted(seed for seed, method in results.kept(preset) if method == MAIN)
    if len(seeds) < 2:
        return ""
    found = rows(results.load(preset, seeds[0], MAIN))
    worst = max(found, key=lambda row: row.factor)
    total = sum(row.planned for row in found) / sum(row.recorded for row in found)
    return (f"checked on the kept run of seed {seeds[0]}, planned from seed {seeds[1]}: "
            f"{total:.2f} times its tokens in all, off by a factor of {worst.factor:.2f} at most "
            f"({worst.stage}, {worst.kind})")  # fmt: skip
