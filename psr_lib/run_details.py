"""What a summary keeps of a model besides its accuracy: what pairs and figures are made of.

Per problem: tokens spent, outcomes under other ways of decoding, steps and their tokens. Per
held-out pair: whether the judge was right, and its problem (a number). Per update: rewards and
log-probabilities of DPO.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from psr_lib import manifest, shares, step_counts
from psr_lib.evaluation import SPENT, read_csv
from psr_lib.records import read_jsonl
from psr_lib.run_dirs import RunDir

ANSWERS = "_answers.jsonl.gz"
OWN_FILE = "own_prompts.jsonl.gz"  # M0 solved with its own template
GREEDY = "greedy"
NOT_ASKED = "-"
HISTORY = {"step": "step", "loss": "loss", "margin": "rewards/margins", "chosen": "logps/chosen",
           "rejected": "logps/rejected"}  # fmt: skip
Take = Callable[[Path], Path]  # notes a file as an input before it is read
Row = dict[str, Any]


def of_model(run: RunDir, method: str, n: int, answers: list[Row], take: Take) -> Row:
    """What is there of M[n] of a method; a part that was not made is left out."""
    home, model = run.eval(method, n), run.model(method, n) if n else run.base
    found: Row = {"tokens": _tokens(answers), "spent": _spent(answers, answers)}
    if (verdicts := home / "verdicts.jsonl.gz").is_file():
        rows = read_jsonl(take(verdicts))
        found["judge_outcomes"] = "".join(str(int(row["correct"])) for row in rows)
        place = {name: k for k, name in enumerate(dict.fromkeys(r["problem_id"] for r in rows))}
        found["judge_shares"] = _judge_shares(rows)
        found["judge_problems"] = " ".join(str(place[row["problem_id"]]) for row in rows)
    if decodings := _decodings([home, run.lab(method, n)], answers, take):
        found["decodings"] = decodings
    if (own := home / OWN_FILE).is_file():
        found["own_prompts"] = _decoding(answers, read_jsonl(take(own)))
    if (sampled := home / f"sampled{ANSWERS}").is_file():
        found["sampled"] = _sampled(answers, read_jsonl(take(sampled)))
    if n > 1 and (history := model / "figures" / "training.csv").is_file():
        found["training"] = _history(take(history))
    return found | _steps(run, home, take)


def _judge_shares(rows: list[Row]) -> dict[str, list[float]]:
    """95 % intervals over problems of the shares that the judge's evaluation counts, by name."""
    parts = {"accuracy": [(row["correct"], 1, row["problem_id"]) for row in rows],
             "first_position": [(row["verdict"] == "A", 1, row["problem_id"])
                                for row in rows if row.get("verdict")]}  # fmt: skip
    for name in (name for name in (rows[0] if rows else ()) if name.startswith("skill_")):
        parts[name] = [(row[name], 1, row["problem_id"]) for row in rows if name in row]
    shares_ = {name: shares.share(*zip(*own, strict=True)) for name, own in parts.items() if own}
    return {name: [found.low or 0.0, 1.0 if found.high is None else found.high]
            for name, found in shares_.items()}  # fmt: skip


def _tokens(answers: list[Row]) -> dict[str, float]:
    """Mean tokens of an answer: generated, and of verdicts."""
    count = max(1, len(answers))
    return {name: round(sum(row.get(name, 0) for row in answers) / count, 3) for name in SPENT}


def _decodings(homes: Sequence[Path], greedy: list[Row], take: Take) -> dict[str, Row]:
    """Outcomes of every other way of decoding whose answers are there, by name.

    The evaluation's come first; the judge laboratory has those at the tokens of its search.
    A file is named after its way, or holds several, named in its rows. Several sampled answers to
    a problem are an average, no way of decoding.
    """
    found: dict[str, Row] = {}
    for path in (path for home in complete(homes) for path in sorted(home.glob(f"*{ANSWERS}"))):
        by_way: dict[str, list[Row]] = {}
        for row in read_jsonl(take(path)):
            by_way.setdefault(row.get("way", path.name.removesuffix(ANSWERS)), []).append(row)
        found |= {way: _decoding(greedy, rows) for way, rows in by_way.items()
                  if way not in (GREEDY, *found) and "sample" not in rows[0]}  # fmt: skip
    return found


def complete(homes: Sequence[Path]) -> list[Path]:
    """Those folders whose stage has finished: what a killed one left is no result."""
    return [home for home in homes if manifest.read(home) is not None]


def _decoding(greedy: list[Row], rows: list[Row]) -> Row:
    """Outcomes, one sign a greedy answer, `-` where it was not asked; and tokens."""
    right = {row["problem_id"]: str(int(row["strict"])) for row in rows}
    outcomes = {name: "".join(signs) for name, signs in _by_set(greedy, right).items()}
    return {"outcomes": outcomes, "tokens": _tokens(rows), "spent": _spent(greedy, rows)}


def _sampled(greedy: list[Row], rows: list[Row]) -> Row:
    """How many answers a problem were sampled, and the share that is right, of sampled sets."""
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["problem_id"], []).append(row["strict"])
    shares = {name: f"{sum(own) / len(own):.6g}" for name, own in right.items()}
    sets = {row["benchmark"] for row in rows}
    kept = {name: " ".join(own) for name, own in _by_set(greedy, shares).items() if name in sets}
    return {"k": max(map(len, right.values())), "shares": kept}


def _spent(greedy: list[Row], rows: list[Row]) -> dict[str, str]:
    """Tokens generated and judged for each greedy answer's problem, `-` where it was not asked."""
    spent = {row["problem_id"]: str(row.get("generated", 0) + row.get("judged", 0)) for row in rows}
    return {name: " ".join(tokens) for name, tokens in _by_set(greedy, spent).items()}


def _by_set(greedy: list[Row], values: Mapping[str, str]) -> dict[str, list[str]]:
    """Benchmark -> a value for each greedy answer, in the problems' order."""
    found: dict[str, list[str]] = {}
    for row in sorted(greedy, key=lambda row: (row["benchmark"], row["problem_id"])):
        value = values.get(row["problem_id"], NOT_ASKED)
        found.setdefault(row["benchmark"], []).append(value)
    return found


def _history(path: Path) -> dict[str, list[float]]:
    """The columns of a training curve that figures show, four digits."""
    rows = read_csv(path)
    return {
        name: [round(float(row[column]), 4) for row in rows]
        for name, column in HISTORY.items()
        if rows and column in rows[0]
    }


def _steps(run: RunDir, home: Path, take: Take) -> Row:
    """Steps and their tokens for each answer, if notebook 06 counted these very answers."""
    made, evaluated = manifest.read(run.steps), manifest.read(home)
    source = home / "answers.jsonl.gz"
    read = (made or {}).get("inputs", {}).get(f"run:{source.relative_to(run.path).as_posix()}", {})
    wrote = (evaluated or {}).get("outputs", {}).get("answers.jsonl.gz", {})
    if not made or not wrote or read.get("hash") != wrote["hash"]:
        return {}
    counted = take(run.steps / step_counts.FILE)
    rows = _by_place(counted, counted.stat().st_mtime_ns)
    found: Row = {"steps": {}, "step_tokens": {}}
    for row in rows.get(home.parent.relative_to(run.path).as_posix(), []):
        for name, column in (("steps", "steps"), ("step_tokens", "tokens")):
            found[name].setdefault(row["benchmark"], []).append(str(row[column]))
    return {name: {k: " ".join(v) for k, v in sets.items()} for name, sets in found.items()}


@lru_cache(maxsize=1)  # one file holds all models of a run, and they are asked for one by one
def _by_place(counted: Path, changed: int) -> dict[str, list[Row]]:
    """The rows of every place in a file of notebook 06; `changed` tells its versions apart."""
    found: dict[str, list[Row]] = {}
    for row in read_jsonl(counted):
        found.setdefault(row["place"], []).append(row)
    return found


def laboratory(homes: list[Path], take: Take) -> Row:
    """The judge laboratory's table in the first of these models' folders that has one (07)."""
    for home in complete([home / "judge" for home in homes]):
        for path in sorted(home.glob("*.csv")):
            rows = read_csv(path)
            if rows and {"strategy", "judge", "consistency"} <= rows[0].keys():
                return {"laboratory": [_numbers(row) for row in read_csv(take(path))]}
    return {}


def _numbers(row: dict[str, str]) -> Row:
    """A row with its numbers as such, empty cells as None."""
    return {name: _number(value) for name, value in row.items()}


def _number(value: str) -> float | str | None:
    try:
        return float(value) if value else None
    except ValueError:
        return value
