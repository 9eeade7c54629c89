"""HTML for notebooks and the report: every text escaped, every style inline.

Inline, because hosts that show notebooks drop style sheets (JupyterLab too, until a notebook is
trusted). Colours are tints over the background that is there, so light and dark both work. Each
has a sign or a word beside it, which is what is left where styles are dropped altogether.

>>> tag("b", "1 < 2", title="a sum")
'<b title="a sum">1 &lt; 2</b>'
"""

import html
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from psr_lib.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

NO_MATHS = "tex2jax_ignore mathjax_ignore"  # a dollar sign in an answer starts no formula
HIDDEN = {"Cc", "Cf", "Cs"}  # control and format characters: they could turn or hide other text
EDGE = "border-left:4px solid {0};background-color:{0}26;padding:1px 6px;border-radius:2px"
CHIP = (
    "border:1px solid {0};background-color:{0}33;padding:0 5px;border-radius:8px;font-size:85%;"
    "white-space:nowrap"
)
LOOKS = {
    "root": "line-height:1.5;max-width:960px;overflow-x:auto",
    "question": f"border-left:4px solid {GREY};background-color:{GREY}1f;padding:5px 10px;"
    "margin:0 0 6px 0",
    "list": "list-style-type:none;margin:0 0 0 6px;padding:0 0 0 10px;"
    f"border-left:2px solid {GREY}66",
    "item": "margin:3px 0;padding:0",
    "line": f"border-left:4px solid {GREY}66;padding:1px 6px",
    "quiet": "opacity:0.75;font-size:90%",
    "fallback": "display:none",
    "table": "border-collapse:collapse;margin:6px 0;width:auto",
    "cell": f"border:1px solid {GREY}66;padding:3px 9px;text-align:center",
    "cards": "display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start",
    "card": f"flex:1 1 200px;min-width:0;border:1px solid {GREY}66;padding:6px 10px",
    "gone": f"background-color:{ORANGE}4d;text-decoration:none;border-bottom:2px solid {ORANGE}",
    "new": f"background-color:{BLUE}38;text-decoration:none;border-bottom:2px solid {BLUE}",
}  # fmt: skip
COLOURS = {"kept": BLUE, "rejected": ORANGE, "right": GREEN, "wrong": RED, "tie": PURPLE,
           "plain": GREY}  # fmt: skip
LOOKS |= {name: EDGE.format(colour) for name, colour in COLOURS.items()}
LOOKS |= {f"chip {name}": CHIP.format(colour) for name, colour in COLOURS.items()}


class Html(str):
    """Markup that is ready; any other text is escaped where it is put into it."""

    def __html__(self) -> str:
        return self


LINE_END = Html("<br>")


def visible(text: str) -> str:
    """The text with control and format characters made visible; line ends and tabs stay."""
    return "".join(
        "\ufffd" if unicodedata.category(sign) in HIDDEN and sign not in "\n\t" else sign
        for sign in text
    )


def safe(part: object) -> Html:
    """A part as markup: escaped, unless it is markup already."""
    if hasattr(part, "__html__"):
        return Html(part.__html__())
    return Html(html.escape(visible(str(part))).replace("\n", LINE_END))


def join(parts: Iterable[object]) -> Html:
    """Parts one after the other."""
    return Html("".join(map(safe, parts)))


def tag(name: str, *parts: object, look: str = "", **attributes: str) -> Html:
    """An element with its parts inside; `look` names its style. Empty attributes are left out."""
    style = ";".join(filter(None, (LOOKS[look] if look else "", attributes.pop("style", ""))))
    named = {"style": style, **attributes}
    written = "".join(
        f' {key.rstrip("_")}="{html.escape(visible(value))}"'
        for key, value in named.items()
        if value
    )
    return Html(f"<{name}{written}>{join(parts)}</{name}>")


def fold(summary: object, *body: object, opened: bool = False) -> Html:
    """Parts under a line that shows and hides them."""
    return tag("details", tag("summary", summary), *body, open="open" if opened else "")


def chip(word: str, kind: str, title: str = "") -> Html:
    """A word on a coloured ground."""
    return tag("span", word, look=f"chip {kind}", title=title)


def bar(share: float, kind: str) -> Html:
    """A share between 0 and 1 as a small bar; it says nothing that stands nowhere else."""
    inner = f"display:block;height:8px;width:{100 * share:.0f}%;background-color:{COLOURS[kind]}"
    outer = f"display:inline-block;height:8px;width:42px;background-color:{GREY}33"
    return tag("span", tag("span", style=inner), style=outer)


@dataclass(frozen=True, repr=False)
class View:
    """Something to look at: HTML where that can be shown, plain text everywhere else."""

    html: Html
    text: str

    def __html__(self) -> str:
        return tag("div", self.html, look="root", class_=NO_MATHS)

    def _repr_html_(self) -> str:
        return self.__html__()

    def _repr_markdown_(self) -> str:
        fence = "~" * 8  # a text of the model may hold backticks
        return f"{fence}text\n{visible(self.text).replace(fence, '')}\n{fence}"

    def __repr__(self) -> str:
        return visible(self.text)


def note(text: str) -> View:
    """A line of text where there is nothing to draw."""
    return View(safe(text), text)
