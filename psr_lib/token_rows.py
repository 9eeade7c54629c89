"""Training rows as token ids: a prompt that carries no loss and a continuation that does.

Prompt and continuation are tokenised apart, as in generation, where the model continues the tokens
of the prompt; so no token ever spans their boundary (paper section 3.4: only the tokens of step l
are scored, its prefix is context). A step that does not end the solution gets a newline and no
end-of-text token, else the policy would learn to stop after every step.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from psr_lib.models import prompt_ids, text_ids
from psr_lib.prompts import Family
from psr_lib.prompts.slots import plain
from psr_lib.records import IFTExample, JudgeExample, PSRError, ScoreExample, StepPair


@dataclass(frozen=True)
class SFTRow:
    """Prompt and response of one supervised row, in token ids."""

    id: str
    prompt_ids: list[int]
    completion_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the whole row."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class StepRow:
    """One pair of sibling steps after the same prefix, in token ids (Eq. 8)."""

    id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    def on_chosen(self) -> SFTRow:
        """The supervised row that holds the chosen step only (control `sft-chosen`)."""
        return SFTRow(self.id, self.prompt_ids, self.chosen_ids)


@dataclass(frozen=True)
class LabelledRow:
    """Tokens with a label for each, as trainers take them: -100 = no loss here."""

    id: str
    input_ids: list[int]
    labels: list[int]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.input_ids)


Row = TypeVar("Row", SFTRow, StepRow, LabelledRow)


def response_ids(tokenizer: Any, text: str, final: bool) -> list[int]:
    """Ids of a continuation: end-of-text after a final one; otherwise as the text stands.

    The text is data, so a special token that it spells out is read by its letters.
    """
    ids = text_ids(tokenizer, plain(tokenizer, text))
    return ids + ([tokenizer.eos_token_id] if final else [])


def step_ids(tokenizer: Any, step: str, final: bool) -> list[int]:
    """Scored ids of one step: the step and end-of-text, or the step and a newline."""
    return response_ids(tokenizer, step if final else step + "\n", final)


def sft_row(
    tokenizer: Any, family: Family, example: IFTExample | JudgeExample | ScoreExample
) -> SFTRow:
    """One supervised row of any kind (paper section 3.2)."""
    if isinstance(example, IFTExample):
        prompt, response = family.solve(example.question), "\n".join(example.steps)
    else:
        if isinstance(example, ScoreExample):
            prompt = family.score(example.question, example.solution)
        else:
            prompt = family.judge(example.question, example.prefix, example.step_a, example.step_b)
        # The text families end their prompt in "Review:"; a chat turn begins without a space.
        response = example.explanation if family.chat else f" {example.explanation}"
    ids = prompt_ids(tokenizer, family.render(tokenizer, prompt))
    return SFTRow(example.id, ids, response_ids(tokenizer, response, final=True))


def step_row(tokenizer: Any, family: Family, pair: StepPair) -> StepRow:
    """One row of step-wise DPO: question and chosen earlier steps, then the two siblings."""
    prompt = family.render(tokenizer, family.solve(pair.question, pair.prefix))
    return StepRow(
        pair.id,
        prompt_ids(tokenizer, prompt),
        step_ids(tokenizer, pair.chosen, pair.chosen_final),
        step_ids(tokenizer, pair.rejected, pair.rejected_final),
    )


def sft_rows(
    tokenizer: Any,
    family: Family,
    examples: Iterable[IFTExample | JudgeExample | ScoreExample],
    max_length: int,
) -> tuple[list[SFTRow], dict[str, int]]:
    """Rows that fit `max_length` tokens, and how many there were, fit and did not."""
    return fitting([sft_row(tokenizer, family, e) for e in examples], max_length)


def step_rows(
    tokenizer: Any, family: Family, pairs: Iterable[StepPair], max_length: int
) -> tuple[list[StepRow], dict[str, int]]:
    """Rows that fit `max_length` tokens and whose siblings differ, and the counts of the rest.

    Shortest first, so that the reference's pass over them pads little; training shuffles them.
    """
    rows = [step_row(tokenizer, family, pair) for pair in pairs]
    rows.sort(key=lambda row: (row.length, row.id))
    return fitting(rows, max_length, lambda row: row.chosen_ids == row.rejected_ids)


def fitting(
    rows: Sequence[Row], max_length: int, same: Callable[[Row], bool] = lambda row: False
) -> tuple[list[Row], dict[str, int]]:
    """The rows that fit and whose siblings differ, and the counts; PSRError if none is left."""
    differ = [row for row in rows if not same(row)]
    kept = [row for row in differ if row.length <= max_length]
    counts = {
        "rows": len(rows),
        "identical": len(rows) - len(differ),
        "too_long": len(differ) - len(kept),
        "used": len(kept),
    }
    if not kept:
        raise PSRError(
            f"training: none of {len(rows)} rows is left ({counts['identical']} identical, "
            f"{counts['too_long']} longer than max_length={max_length}); make more or raise it"
        )
    return kept, counts


def columns(row: SFTRow | StepRow | LabelledRow) -> dict[str, Any]:
    """The columns that the trainer of this row's kind reads."""
    if isinstance(row, StepRow):
        return asdict(row)
    if isinstance(row, LabelledRow):
        return {"input_ids": row.input_ids, "labels": row.labels}
    labels = [-100] * len(row.prompt_ids) + row.completion_ids  # -100 = no loss here
    return {"input_ids": row.prompt_ids + row.completion_ids, "labels": labels}


def explain_row(
    tokenizer: Any, row: SFTRow | StepRow, side: str = "chosen"
) -> list[tuple[str, bool]]:
    """Each token of a row as text with whether it is scored; `side` is `chosen` or `rejected`."""
    scored = row.completion_ids if isinstance(row, SFTRow) else getattr(row, f"{side}_ids")
    marked = [(i, False) for i in row.prompt_ids] + [(i, True) for i in scored]
    return [(tokenizer.decode([i]), flag) for i, flag in marked]


def bracketed(tokens: Iterable[tuple[str, bool]]) -> str:
    r"""The tokens of `explain_row` as one text, scored ones in brackets, their newlines as \n."""
    return " ".join(f"[{t}]".replace("\n", "\\n") if scored else t for t, scored in tokens)
