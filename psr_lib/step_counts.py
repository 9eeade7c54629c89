"""Number and length of the steps of answers (paper section 5.2 and appendix A, Tables 4, 7, 8).

The length of a step is its tokens without the `Step n:` mark; the paper does not state its unit.
The mean length is over all steps, so number times length is the mean total length.

>>> count("Step 1: 2 + 2 = 4.\\nStep 2: so 4.", lambda text: len(text.split()))
{'steps': 2, 'tokens': 7, 'words': 7}
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from psr_lib import seeds
from psr_lib.records import read_jsonl
from psr_lib.steps import body, split_steps

FILE = "steps.jsonl.gz"
MEASURES = ("steps", "tokens", "words")
Row = dict[str, Any]


def count(text: str, tokens_of: Callable[[str], int]) -> dict[str, int]:
    """Steps of an answer, and the tokens and words of all of them without their marks."""
    bodies = [body(step) for step in split_steps(text)]
    return {"steps": len(bodies), "tokens": sum(map(tokens_of, bodies)),
            "words": sum(len(step.split()) for step in bodies)}  # fmt: skip


def answer_rows(
    place: str, answers: Iterable[Mapping[str, Any]], tokens_of: Callable[[str], int]
) -> list[Row]:
    """A row an answer of the model at `place` of the run, such as `psrlm/M1`, sorted by problem."""
    kept = sorted(answers, key=lambda row: (row["benchmark"], row["problem_id"]))
    return [
        {"place": place, "benchmark": row["benchmark"], "problem_id": row["problem_id"],
         **count(row["text"], tokens_of)}
        for row in kept
    ]  # fmt: skip


def run_rows(stage: Any) -> list[Row]:
    """Steps of every greedy answer in the stage's run, model by model."""
    from psr_lib.models import load_tokenizer, text_ids

    tokenizer, rows = load_tokenizer(stage.model(0)), []
    for made in stage.holdings():
        path = made.parent / "answers.jsonl.gz"
        if made.parent.name == "eval" and path.is_file():
            place = made.parent.parent.relative_to(stage.run.path).as_posix()
            answers = read_jsonl(stage.holding(path))
            rows += answer_rows(place, answers, lambda text: len(text_ids(tokenizer, text)))
    return rows


def table(rows: Sequence[Row]) -> list[Row]:
    """Each model's mean number and length of steps and their product, by benchmark and over all.

    Every mean has its 95 % interval over problems, `<name>_low` and `<name>_high`.
    """
    found = []
    for place, sets in by_place(rows).items():
        for name in (*sets, "mean"):
            data = sets if name == "mean" else {name: sets[name]}
            found.append({"model": place, "benchmark": name, **_measures(data)})
    return found


def by_place(rows: Sequence[Row]) -> dict[str, dict[str, np.ndarray]]:
    """Place -> benchmark -> counts as [steps, tokens, words] x one seed x problems."""
    grouped: dict[str, dict[str, list[list[int]]]] = {}
    for row in rows:
        counts = [row[name] for name in MEASURES]
        grouped.setdefault(row["place"], {}).setdefault(row["benchmark"], []).append(counts)
    return {place: {name: np.array(counts).T[:, None, :] for name, counts in sets.items()}
            for place, sets in grouped.items()}  # fmt: skip


def _measures(data: Mapping[str, np.ndarray]) -> Row:
    columns = {"number": ([0], seeds.first), "length": ([1, 0], seeds.ratio),
               "words": ([2, 0], seeds.ratio), "total": ([1], seeds.first)}  # fmt: skip
    found: Row = {"n": sum(values.shape[2] for values in data.values())}
    for name, (places, statistic) in columns.items():
        part = {key: values[places] for key, values in data.items()}
        one = seeds.estimate(part, statistic)
        found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return found


def curve(rows: Sequence[Row], method: str, shared: str = "psrlm") -> list[Row]:
    """The table's rows of one method's models as the steps figure takes them; M1 may be shared."""
    own = {row["model"] for row in rows if row["model"].startswith(f"{method}/")}
    first = f"{method}/M1" if f"{method}/M1" in own else f"{shared}/M1"
    return [
        {"panel": panel, "series": row["benchmark"], "model": row["model"].rpartition("/")[2],
         "value": row[panel], "low": row[f"{panel}_low"], "high": row[f"{panel}_high"]}
        for panel in ("number", "length", "total") for row in rows
        if row["model"] in own | {first}
    ]  # fmt: skip
