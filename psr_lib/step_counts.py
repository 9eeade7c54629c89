"""Number and length of the steps of answers (paper section 5.2 and appendix A, Tables 4, 7, 8).

The length of a step is its tokens without the `Step n:` mark; the paper does not state its unit.
The mean length is over all steps, so number times length is the mean total length.

>>> bodies("Step 1: 2 + 2 = 4.\\nStep 2: so 4.")
['2 + 2 = 4.', 'so 4.']
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from psr_lib import seeds
from psr_lib.records import read_jsonl
from psr_lib.steps import body, split_steps

FILE = "steps.jsonl.gz"
MEASURES = ("steps", "tokens", "words")
Row = dict[str, Any]


def bodies(text: str) -> list[str]:
    """The steps of an answer without their marks."""
    return [body(step) for step in split_steps(text)]


def answer_rows(
    place: str,
    answers: Iterable[Mapping[str, Any]],
    tokens_of: Callable[[list[str]], Iterable[int]],
) -> list[Row]:
    """A row an answer of the model at `place` of the run, such as `psrlm/M1`, sorted by problem.

    `tokens_of` counts the tokens of many texts: one call for all steps is ten times as quick.
    """
    kept = sorted(answers, key=lambda row: (row["benchmark"], row["problem_id"]))
    steps = [bodies(row["text"]) for row in kept]
    lengths = iter(tokens_of([one for own in steps for one in own]))
    return [
        {"place": place, "benchmark": row["benchmark"], "problem_id": row["problem_id"],
         "steps": len(own), "tokens": sum(islice(lengths, len(own))),
         "words": sum(len(one.split()) for one in own)}
        for row, own in zip(kept, steps, strict=True)
    ]  # fmt: skip


def run_rows(stage: Any) -> list[Row]:
    """Steps of every greedy answer in the stage's run, model by model."""
    from psr_lib.models import load_tokenizer

    rows: list[Row] = []
    tokens_of = counter(load_tokenizer(stage.model(0)))
    for made in stage.holdings():
        path = made.parent / "answers.jsonl.gz"
        if made.parent.name == "eval" and path.is_file():
            place = made.parent.parent.relative_to(stage.run.path).as_posix()
            answers = read_jsonl(stage.holding(path))
            rows += answer_rows(place, answers, tokens_of)
    return rows


def counter(tokenizer: Any) -> Callable[[list[str]], Iterable[int]]:
    """Counts tokens of texts; what one model wrote, others write too, and it is counted once."""
    from psr_lib.models import texts_ids

    known: dict[str, int] = {}

    def tokens_of(texts: list[str]) -> Iterable[int]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, map(len, texts_ids(tokenizer, new)), strict=True))
        return [known[text] for text in texts]

    return tokens_of


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


def shown(rows: Sequence[Row]) -> list[Row]:
    """Each model's means over all benchmarks for the eye, intervals in brackets."""
    columns = {"number": "steps an answer", "length": "tokens a step", "words": "words a step",
               "total": "tokens of all steps"}  # fmt: skip
    return [
        {"model": row["model"], "answers": row["n"]}
        | {says: _text(row, name) for name, says in columns.items()}
        for row in rows if row["benchmark"] == "mean"
    ]  # fmt: skip


def _text(row: Row, name: str) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


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
