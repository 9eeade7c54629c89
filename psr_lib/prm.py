"""Step PRM: a causal language model that says `+` or `-` after each step (paper section 3.2).

As OpenR does it (arXiv 2410.09671): a tag follows every step, the loss is at the tags only, and

    p(+ | question, steps 1..l) = softmax of the logits of `+` and `-` at the tag of step l.

Where something knows up to which character a step is right (the oracle does), the marks that end
its clauses are tags too, in training: `+` as long as all of the step so far is right.

The label is what the model says next after a tag, in training as in use, so that any engine can
score: p(+) comes from `choose` with the two labels as options.
"""

import re
from collections.abc import Iterator, Sequence
from math import exp, inf
from pathlib import Path
from typing import Any

import numpy as np

from psr_lib.checkpoints import Checkpoints
from psr_lib.engines.base import Engine
from psr_lib.guard import engine_call
from psr_lib.models import check_tokenizer, prompt_ids, text_ids
from psr_lib.prompts import Family
from psr_lib.records import PSRError, StepLabels
from psr_lib.sft import make_trainer
from psr_lib.stats import auc, bootstrap_by_group, calibration_error
from psr_lib.steps import body
from psr_lib.token_rows import LabelledRow, fitting
from psr_lib.training import Progress, TrainSettings, context, keep, policy, run, workspace

GOOD, BAD = LABELS = ("+", "-")
NO_LOSS = -100
CLAUSE = re.compile(r"[.,:](?!\d)")  # what ends a clause, and is no part of a number
Asked = tuple[str, Sequence[str]]  # a question, and the steps whose last one is to be scored


def label_ids(tokenizer: Any) -> dict[str, int]:
    """The token of each label; raises PSRError where one is not a token of its own."""
    ids = {label: text_ids(tokenizer, label) for label in LABELS}
    if any(len(found) != 1 for found in ids.values()) or ids[GOOD] == ids[BAD]:
        raise PSRError(f"prm: {GOOD} and {BAD} are {ids} here; take a base model with a token each")
    return {label: found[0] for label, found in ids.items()}


def clauses(row: StepLabels) -> list[list[tuple[int, str]]]:
    """Of each step, the ends of its clauses (characters, after its mark) and their labels.

    >>> clauses(StepLabels(id="", problem_id="", question="", steps=["Step 1: 4 + 5: 8, so 8."],
    ...                    labels=["-"], sound=[14]))
    [[(14, '+'), (17, '-'), (23, '-')]]
    """
    found = []
    for step, sound in zip(row.steps, row.sound, strict=True):
        begin = len(step) - len(body(step))
        ends = [match.end() for match in CLAUSE.finditer(step, begin)]
        found.append([(end, GOOD if end <= sound else BAD) for end in ends])
    return found


def prm_row(tokenizer: Any, family: Family, row: StepLabels, tag: str) -> LabelledRow:
    """One solution as tokens; the label of step l is the target after the l-th tag.

    Raises PSRError where a tag changes the tokens before it, as training and use would then differ.
    """
    if len(row.steps) != len(row.labels):
        raise PSRError(f"prm: row {row.id} has {len(row.steps)} steps, {len(row.labels)} labels")
    wanted = label_ids(tokenizer)
    read = [
        prompt_ids(tokenizer, family.check(tokenizer, row.question, row.steps[:k], tag))
        for k in range(1, len(row.steps) + 1)
    ]
    # What is read after the last tag bears no meaning: only its place is needed for the target.
    ids = read[-1] + [tokenizer.eos_token_id]
    labels = [NO_LOSS] * len(ids)
    for before, label in zip(read, row.labels, strict=True):
        if ids[: len(before)] != before:
            raise PSRError(f"prm.tag {tag!r} joins the tokens around it; take another")
        if label:
            labels[len(before)] = wanted[label]
    for place, label in _clause_places(tokenizer, family, row, tag):
        labels[place] = wanted[label]
    return LabelledRow(row.id, ids, labels)


def _clause_places(
    tokenizer: Any, family: Family, row: StepLabels, tag: str
) -> Iterator[tuple[int, str]]:
    """The number of tokens up to the end of each clause, and its label."""
    if not row.sound:
        return
    read = [family.check(tokenizer, row.question, row.steps[:k], tag)
            for k in range(len(row.steps) + 1)]  # fmt: skip
    spans = tokenizer(read[-1], add_special_tokens=False, return_offsets_mapping=True)
    shift = len(prompt_ids(tokenizer, read[-1])) - len(spans.input_ids)
    tokens = {end: k + 1 + shift for k, (_, end) in enumerate(spans.offset_mapping)}
    for before, step, found in zip(read, row.steps, clauses(row), strict=False):
        begin = read[-1].index(step, len(before))
        yield from ((tokens[begin + end], label) for end, label in found if begin + end in tokens)


def train_prm(
    model_dir: Path | str,
    tokenizer: Any,
    rows: Sequence[StepLabels],
    settings: TrainSettings,
    out_dir: Path | str,
    seed: int,
    family: Family,
    tag: str,
    on_progress: Progress | None = None,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    merge: bool = True,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Any]:
    """Fine-tune the model of `model_dir` on labelled steps and save it in `out_dir/model`.

    Returns what `sft.train_sft` does. Raises PSRError where no row fits `settings.max_length`, a
    label is no token of its own, or the model folder is incomplete.
    """
    model = policy(model_dir, device, trust_remote_code)
    check_tokenizer(tokenizer, model_dir)
    made = [prm_row(tokenizer, family, row, tag) for row in rows if any(row.labels)]
    kept, counts = fitting(made, context(model.config, settings))
    with workspace(out_dir) as work:
        trainer, plan, report = make_trainer(
            model, tokenizer, kept, settings, work=work, seed=seed, on_progress=on_progress
        )
        result = run(trainer, report, plan, counts, checkpoints)
        return result | keep(trainer, tokenizer, model_dir, out_dir, merge)


class PRM:
    """Scores steps with a trained PRM behind an engine; remembers nothing."""

    def __init__(self, engine: Engine, family: Family, tokenizer: Any, tag: str):
        """`tag` as in training."""
        self.engine, self.family, self.tokenizer, self.tag = engine, family, tokenizer, tag

    def score(self, asked: Sequence[Asked]) -> list[float | None]:
        """p(+) of the last step of each, in one engine call; None where the context is too short.

        Raises PSRError where the engine fails.
        """
        if not asked:
            return []
        texts = [self.family.check(self.tokenizer, q, steps, self.tag) for q, steps in asked]
        with engine_call("scoring steps"):
            logs = self.engine.choose(texts, list(LABELS))
        return [share(*pair) for pair in logs]

    def score_rows(self, rows: Sequence[StepLabels]) -> list[dict[str, Any]]:
        """One row a labelled step: problem, place, label (1 for `+`) and p(+)."""
        places = [(row, k) for row in rows for k, label in enumerate(row.labels) if label]
        found = self.score([(row.question, row.steps[: k + 1]) for row, k in places])
        return [
            {"problem_id": row.problem_id, "step": k + 1, "label": int(row.labels[k] == GOOD),
             "p": p} for (row, k), p in zip(places, found, strict=True) if p is not None
        ]  # fmt: skip


def report(rows: Sequence[dict[str, Any]], bins: int, seed: int = 0) -> dict[str, Any]:
    """Accuracy (at p = 1/2), AUC and calibration error of scored steps, with 95 % intervals.

    The steps of a problem hang together, so the intervals draw whole problems. Raises PSRError
    where all labels are alike.
    """
    labels, scores = (np.array([row[name] for row in rows]) for name in ("label", "p"))
    found: dict[str, Any] = {"steps": len(rows), "good": float(labels.mean())}
    for name, statistic in (
        ("accuracy", lambda k: float(((scores[k] > 0.5) == labels[k]).mean())),
        ("auc", lambda k: auc(labels[k], scores[k])),
        ("calibration_error", lambda k: calibration_error(labels[k], scores[k], bins)),
    ):
        found[name] = statistic(np.arange(len(rows)))
        ends = bootstrap_by_group([row["problem_id"] for row in rows], statistic, seed=seed)
        found[f"{name}_low"], found[f"{name}_high"] = ends
    return found | {"problems": len({row["problem_id"] for row in rows})}


def share(good: float, bad: float) -> float | None:
    """softmax of two log-probabilities, the first one's part; None where neither is there.

    >>> round(share(-1.0, -2.0), 3)
    0.731
    """
    if max(good, bad) == -inf:
        return None
    return 1 / (1 + exp(min(bad - good, 700.0)))
