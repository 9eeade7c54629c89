"""The price table of teachers, and what a number of calls is likely to cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from psr_lib.records import PSRError

TABLE = Path(__file__).with_name("prices.yaml")
FIELDS = ("input", "output", "source", "date")
LETTERS = 4.0  # characters of English for one token, until answers say how many there are


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens, where the numbers are from and of which day."""

    input: float
    output: float
    source: str
    date: str

    def of(self, prompt_tokens: float, tokens: float) -> float:
        """US dollars for so many tokens read and written."""
        return (self.input * prompt_tokens + self.output * tokens) / 1e6


def load(path: Path | str = TABLE) -> dict[str, Price]:
    """The table by model. Raises PSRError naming file, model and field."""
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise PSRError(f"{path}: unreadable ({type(error).__name__}); restore it") from None
    if not isinstance(found, dict):
        raise PSRError(f"{path}: expected models with prices, found {type(found).__name__}")
    return {str(model): _price(entry, f"{path}: {model}") for model, entry in found.items()}


def _price(entry: Any, where: str) -> Price:
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        raise PSRError(f"{where}: expected the fields {', '.join(FIELDS)}; found {entry!r}")
    for name in ("input", "output"):
        value = entry[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise PSRError(f"{where}: field {name!r} should be dollars a million, found {value!r}")
    for name in ("source", "date"):
        if not str(entry[name] or "").strip():
            raise PSRError(
                f"{where}: field {name!r} is empty; say where the price is from, or when"
            )
    return Price(float(entry["input"]), float(entry["output"]), entry["source"], str(entry["date"]))


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked: calls, tokens read and written, dollars (None: price unknown).

    `measured`: how many answers the tokens of a call were taken from; 0 means by rule of thumb.
    """

    model: str
    calls: int
    answered: int
    prompt_tokens: int
    tokens: int
    measured: int
    dollars: float | None
    price: Price | None

    def __str__(self) -> str:
        by = f"as in {self.measured} answers" if self.measured else "by rule of thumb"
        head = (
            f"{self.model}: {self.calls} calls to make, {self.answered} answers there; about "
            f"{self.prompt_tokens:,} tokens to read and {self.tokens:,} to write ({by})"
        )
        if self.price is None:
            return f"{head}; price unknown, add {self.model} to psr_lib/prices.yaml"
        return f"{head}; about {self.dollars:,.2f} US dollars at the price of {self.price.date}"


def estimate(
    model: str,
    texts: list[str],
    answers: list[dict[str, Any]],
    answer_tokens: int,
    table: dict[str, Price] | None = None,
) -> Estimate:
    """What asking the prompts `texts` is likely to take.

    `answers` are those of this teacher so far (`letters` of the prompt, `prompt_tokens`, `tokens`):
    they say how many tokens a call takes. Without any, four characters are a token and an answer is
    `answer_tokens` long.
    """
    letters, known = sum(map(len, texts)), [a for a in answers if a["prompt_tokens"]]
    if known:
        read = sum(a["prompt_tokens"] for a in known) / sum(a["letters"] for a in known)
        written = sum(a["tokens"] for a in known) / len(known)
    else:
        read, written = 1 / LETTERS, answer_tokens
    prompt_tokens, tokens = round(letters * read), round(len(texts) * written)
    price = (load() if table is None else table).get(model)
    dollars = price.of(prompt_tokens, tokens) if price else None
    return Estimate(model, len(texts), len(answers), prompt_tokens, tokens, len(known), dollars,
                    price)  # fmt: skip
