"""The offline teacher and the checks: nothing is altered, no formula or sentence is cut."""

import pytest

from psr_lib import ift
from psr_lib.formulas import formulas, latex_dollars
from psr_lib.records import Problem
from psr_lib.segment import cut, sentences

GSM8K = (
    "Dr. Lee buys 3 boxes at $5 each, so 3 * $5 = $15. She has $20. She gets $20 - $15 = $5 back.\n"
    "She needs 2 more for $2.50\nso 2 * $2.50 = $5\nThe answer is \\boxed{0}."
)
MATH = (
    "We know that $x = 3.$  Also, if $y > 0,$ then\n\\[\\begin{aligned} y &= x^2 \\\\ &= 9."
    "\\end{aligned}\\]Hence \\(y = 9\\).\n\n[asy]\ndraw((0,0)--(1,1)); // Nothing. It\n[/asy]\n\n"
    "Now there are two cases to look at:\n\nCase 1: $x < y.$ Fine.\n\nCase 2: $x = y.$ Then "
    "$x + y = \\boxed{12}.$ We could check this.  It holds."
)


def problem(solution):
    return Problem(id="a/0", source="a", question="How much?", answer="", solution=solution)


def plain(texts):
    return "".join("".join(texts).split())


def test_lines_sentences_and_money():
    assert cut(GSM8K) == [
        "Dr. Lee buys 3 boxes at $5 each, so 3 * $5 = $15.",
        "She has $20. She gets $20 - $15 = $5 back.",
        "She needs 2 more for $2.50\nso 2 * $2.50 = $5\nThe answer is \\boxed{0}.",
    ]


def test_formulas_paragraphs_drawings_and_cases():
    steps = cut(MATH)
    assert plain(steps) == plain([MATH])
    assert any(step.startswith("Case 1:") for step in steps)
    assert sum("[asy]" in step and "draw" in step for step in steps) == 1
    assert steps[-1].endswith("It holds.") and "\\boxed" in steps[-1]
    assert ift.by_rule(problem(MATH)).fault == ""


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("We see that e.g. Fig. 2 shows $x. Y$ here. Then we go.", 2),
        ("It is $5!$ or 5! 4 times. Then 4! Now stop.", 3),
        ("So we get $a = 1,$ $b = 2.$ Thus it ends.", 2),
        ("By \\[x = 2.\\]Then it ends.", 2),
        ("By \\[x = 2,\\]where it ends.", 1),
        ('Let 3.5 be it. "Why?" Because.', 3),
        ("1. First do this\n2. Then do that", 2),
        ("A line that wraps\nin the middle", 1),
        ("1, 2, ... N are there. Good.", 2),
        ("John F. Kennedy ran. He won.", 2),
        ("The point is at A. Then B.", 2),
    ],
)
def test_where_a_sentence_ends(text, count):
    assert len(sentences(text)) == count, [piece.text for piece in sentences(text)]


def test_one_long_sentence_is_one_step_and_two_are_not():
    one = "If $x = 1$ then\n\\begin{align*}y &= 2 \\\\ &= \\boxed{3}.\\end{align*}"
    assert len(cut(one)) == 1 and ift.by_rule(problem(one)).fault == ""
    assert len(cut("There are two. So \\boxed{2}.")) == 2
    early = "It is \\boxed{2}. We can check that."
    assert ift.by_rule(problem(early)).fault == "several sentences are one step"


def test_formulas_are_found_and_money_is_none():
    found = [
        f.text
        for f in formulas("a $x$ \\$5 $$y$$ \\(z\\) \\text{a. B} \\begin{cases}1\\end{cases}")
    ]
    assert found == ["$x$", "$$y$$", "\\(z\\)", "\\text{a. B}", "\\begin{cases}1\\end{cases}"]
    assert [f.text for f in formulas("$5 bills make $5 * 3 = $15, and $x$.")] == ["$x$"]
    assert not latex_dollars("$20 + $30 = $50 is $ 9") and latex_dollars("$x$ and $ y $")
    assert formulas("never closed \\[ x") == []


STEPS = ["Step 1: Half is $4 / 2 = 2$.", "Step 2: So\n$2 + 3 = \\boxed{5}$."]
SOURCE = "Half is $4 / 2 = 2$.\n\nSo $2 + 3 = \\boxed{5}$."


@pytest.mark.parametrize(
    ("source", "steps", "words"),
    [
        (SOURCE, STEPS, ""),
        (SOURCE, ["Step 1: Half is $4/2=2$. So $2+3=\\boxed{5}$."], "several sentences"),
        (SOURCE, [STEPS[0].replace("Half", "One half"), STEPS[1]], "became 'Onehalf"),
        (SOURCE, [STEPS[0], STEPS[1].replace("5", "6")], "altered"),
        (SOURCE, [*STEPS, "Step 3: Good."], "altered"),
        (SOURCE, STEPS[:1], "altered"),
        (SOURCE, [STEPS[0], STEPS[1].replace("2:", "3:")], "not marked"),
        (SOURCE, [STEPS[0][8:], STEPS[1]], "not marked"),
        (SOURCE, [], "not marked"),
        (SOURCE, ["Step 1: Half is $4 /", "Step 2: 2 = 2$. So $2 + 3 = \\boxed{5}$."], "is cut"),
        ("Half is 2. So 5.", ["Step 1: Half is 2.", "Step 2: So 5."], "no boxed answer"),
        ("It is \\boxed{5}. So it is.", ["Step 1: It is \\boxed{5}.", "Step 2: So it is."], "last"),
        ("Step 1: It is 4.\nStep 2: So \\boxed{5}.", ["Step 1: It is 4.", "Step 2: So \\boxed{5}."],
         ""),
    ],
)  # fmt: skip
def test_each_fault_is_named(source, steps, words):
    found = ift.fault(source, steps)
    assert words in found and bool(words) == bool(found) and "\n" not in found


def test_marks_that_are_there_are_kept_and_odd_ones_are_a_fault():
    source = "Step 1: 2 + 2 = 4.\nStep 2: So \\boxed{4}."
    assert ift.by_rule(problem(source)).steps == source.split("\n")
    odd = ift.by_rule(problem("First.\nStep 3: 2 + 2 = 4.\nStep 4: So \\boxed{4}."))
    assert "not marked" in odd.fault


def test_no_line_inside_a_step_would_end_it():
    steps = ift.marked(["It is so.\nStep back now.", "End."])
    assert "\nStep" not in steps[0] and steps[1] == "Step 2: End."
