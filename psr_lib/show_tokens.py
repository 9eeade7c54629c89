"""A training row token by token: what is scored, and how far the policy has moved on each token."""

from collections.abc import Mapping, Sequence
from typing import Any

from psr_lib.figures import BLUE, ORANGE
from psr_lib.log_ratios import TokenLogs
from psr_lib.markup import LINE_END, Html, View, chip, fold, join, safe, tag
from psr_lib.token_rows import SFTRow, StepRow, bracketed, explain_row

FULL = 0xB0  # opacity of the largest log-ratio, of 0xFF
SEEN = 0.005  # nats; a smaller move has no colour
LEGEND = "Blue: the policy gives the token more than the reference does; orange: less."
Tokens = list[tuple[str, bool]]


def tokens(
    tokenizer: Any, row: SFTRow | StepRow, logs: Mapping[str, TokenLogs] | None = None
) -> View:
    """A row's tokens, scored ones marked; with `logs` of a step pair coloured by log-ratio."""
    sides = ("chosen", "rejected") if isinstance(row, StepRow) else ("response",)
    found = {side: explain_row(tokenizer, row, side) for side in sides}
    context = [text for text, scored in next(iter(found.values())) if not scored]
    top = max([SEEN, *(abs(r) for one in (logs or {}).values() for r in one.ratios)])
    drawn = [_side(side, _scored(found[side]), (logs or {}).get(side), top) for side in sides]
    parts = [fold(f"context: {len(context)} tokens that carry no loss", _plain(context)), *drawn]
    if logs:
        scale = f"{LEGEND} Full colour: {top:.2f} nats. Point at a token for its numbers."
        parts += [_numbers(found, logs), tag("div", scale, look="quiet")]
    return View(join(parts), "\n".join(_lines(found, logs)))


def signed(value: float) -> str:
    """A number with its sign; nothing has none.

    >>> signed(-0.004), signed(-0.5)
    ('0.00', '-0.50')
    """
    return f"{value:+.2f}" if abs(value) >= SEEN else "0.00"


def _scored(tokens: Tokens) -> list[str]:
    return [text for text, scored in tokens if scored]


def _plain(texts: Sequence[str]) -> Html:
    return tag("div", " ".join(text.strip(" ") for text in texts), look="line")


def _side(side: str, texts: Sequence[str], logs: TokenLogs | None, top: float) -> Html:
    kind = {"chosen": "kept", "rejected": "rejected"}.get(side, "plain")
    moved = f" moved by {signed(sum(logs.ratios))} nats" if logs else ""
    ratios: Sequence[float | None] = logs.ratios if logs else [None] * len(texts)
    drawn = [_token(text, r, top, _told(logs, k)) for k, (text, r)
             in enumerate(zip(texts, ratios, strict=True))]  # fmt: skip
    return tag("div", chip(side, kind), moved, LINE_END, *drawn, look="line", style="margin:4px 0")


def _token(text: str, ratio: float | None, top: float, told: str) -> Html:
    """A token on its colour; where styles are dropped, in brackets with its log-ratio."""
    colour, number = f"{BLUE}30", ""
    if ratio is not None:
        seen = abs(ratio) >= SEEN
        depth = round(FULL * min(1.0, abs(ratio) / top)) if seen else 0
        colour = f"{BLUE if ratio > 0 else ORANGE}{depth:02x}"
        number = f" {signed(ratio)}" if seen else ""
    before, after = (tag("span", sign, look="fallback") for sign in ("[", f"{number}] "))
    style = f"background-color:{colour};padding:1px 2px;margin:0 1px;border-radius:2px"
    return join([tag("span", before, _sign(text), after,
                     style=style, title=told), " "])  # fmt: skip


def _told(logs: TokenLogs | None, k: int) -> str:
    if logs is None:
        return ""
    return (f"log π {logs.policy[k]:.3f}, log ref {logs.reference[k]:.3f}, "
            f"ratio {logs.ratios[k]:+.3f} nats")  # fmt: skip


def _numbers(found: Mapping[str, Tokens], logs: Mapping[str, TokenLogs]) -> Html:
    """The same as aligned text, folded."""
    lines = [f"{'step':<9} {'token':<12} {'log π':>8} {'log ref':>8} {'ratio':>8}"]
    for side, one in logs.items():
        for text, p, r in zip(_scored(found[side]), one.policy, one.reference, strict=True):
            lines.append(f"{side:<9} {_sign(text):<12} {p:8.3f} {r:8.3f} {p - r:+8.3f}")
    return fold("in numbers", tag("pre", *(Html(safe(line) + "\n") for line in lines)))


def _sign(text: str) -> str:
    """A token that can be seen."""
    return text.replace("\n", "⏎").strip(" ") or "␣"


def _lines(found: Mapping[str, Tokens], logs: Mapping[str, TokenLogs] | None) -> list[str]:
    lines = []
    for k, (side, one) in enumerate(found.items()):
        shown = one if k == 0 else [token for token in one if token[1]]
        moved = f" ({signed(sum(logs[side].ratios))} nats)" if logs else ""
        lines.append(f"{side}{moved}: {bracketed(shown)}")
    return lines
