"""What stands in a slot of a prompt is data: it cannot end the slot, give a verdict or take a turn.

A model judges what it wrote itself, so nothing in a candidate may pass for what the prompt is made
of. Four things are rewritten, and a reader still sees what was written:

- a verdict, as an explanation may quote it: `[[A]]` becomes `(A)`;
- a section mark of the family's templates: `[The End of ...]` becomes `(The End of ...)`;
- a label of theirs at the beginning of a line: `Review:` becomes `(Review):`;
- a special token of the model's tokenizer, or a mark of turns in its chat template: `<|im_end|>`
  becomes `< |im_end|>`.

Texts without them stay as they are.

>>> defuse("I win: [[A]]")
'I win: (A)'
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

VERDICT = re.compile(r"\[\[([AB])\]\]")
SECTION = re.compile(r"\[[^\[\]\n]+\]|</?[a-z]+>")  # how templates mark sections
LABEL = re.compile(r"^(?:\{prefix\})?([A-Z][A-Za-z ]*):", re.MULTILINE)  # and label lines
BREAKS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"  # what ends a line, to str.splitlines or to an eye
BRACKETED = re.compile(r"<\S+>")
OWN = frozenset({"[[A]]", "[[B]]", "\\boxed{", "\\boxed"})  # what the loop reads, whoever adds it
# Where the tokenizer is not at hand, as behind a chat API: the forms that models use.
CUSTOMARY = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_\w{1,9}>"
    r"|\[/?INST\]|<</?SYS>>"
)


class Marks(NamedTuple):
    """What a family's templates are made of besides their words."""

    sections: re.Pattern
    labels: re.Pattern


@lru_cache
def marks_of(templates: tuple[str, ...]) -> Marks:
    """The marks and labels of these templates, the verdicts that they ask for left out."""
    texts = [VERDICT.sub("", text) for text in templates]
    sections = {name for text in texts for name in SECTION.findall(text)}
    labels = {name for text in texts for name in LABEL.findall(text)}
    return Marks(
        re.compile(_any(map(_loose, sorted(sections))), re.IGNORECASE),
        re.compile(rf"(?<![^{BREAKS}])([ \t]*)({_any(map(re.escape, sorted(labels)))})(?=[ \t]*:)"),
    )


def _any(patterns: Any) -> str:
    return "|".join(patterns) or r"(?!)"


def _loose(mark: str) -> str:
    """A mark however it is spaced, and with either apostrophe."""
    words = [re.escape(word).replace("'", "['\u2019]") for word in mark[1:-1].split()]
    parts = (re.escape(mark[0]), r"\s+".join(words), re.escape(mark[-1]))
    return r"\s*".join(parts)


def defuse(text: str) -> str:
    """The text with `[[A]]` written as `(A)`."""
    return VERDICT.sub(r"(\1)", text)


def one_line(text: str) -> str:
    """The text without line breaks, for families where a line is a step."""
    return " ".join(text.splitlines())


@lru_cache(maxsize=4096)  # a step stands in a prompt for each of its siblings
def fit(text: str, marks: Marks) -> str:
    """The text as it may stand in a slot: no verdict, no section mark, no label of the prompt's."""
    text = marks.sections.sub(lambda found: f"({found[0][1:-1]})", defuse(text))
    return marks.labels.sub(r"\1(\2)", text)


def plain(tokenizer: Any, text: str) -> str:
    """The text with a blank inside each special token of the tokenizer, which so is none.

    Without a tokenizer that lists its own (`None`, or a chat server's) the customary forms count.
    """
    pattern = special_tokens(tokenizer)
    while pattern.search(text):
        text = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


@lru_cache(maxsize=8)
def special_tokens(tokenizer: Any) -> re.Pattern:
    """Matches what a tokenizer, or a model of its chat template, reads as more than its letters."""
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if added is None:
        return CUSTOMARY
    control = [t.content for t in added.values() if t.special or BRACKETED.fullmatch(t.content)]
    # Some chat templates mark turns by plain text, such as [INST], that no token stands for.
    control += CUSTOMARY.findall(str(getattr(tokenizer, "chat_template", "")))
    return re.compile(_any(map(re.escape, _breakable([*control, *tokenizer.all_special_tokens]))))


def _breakable(names: Sequence[str]) -> list[str]:
    """Names that a blank can break, longest first, so that none hides another."""
    found = {name.strip() for name in names if len(name.strip()) > 1} - OWN
    return sorted(found, key=len, reverse=True)
