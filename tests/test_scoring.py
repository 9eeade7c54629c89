"""Reading points, scoring solutions, and the oracle's justifications."""

import random
from types import SimpleNamespace

import pytest
from scripted import Scripted, questions

from psr_lib import problems, prompts
from psr_lib.problems import LEVELS, make_puzzle
from psr_lib.records import PSRError, ScoreExample, seed_of
from psr_lib.scoring import Scored, score_solutions, score_stats
from psr_lib.solution_reviews import review, skills

PAPER, COMPACT = prompts.load("paper"), prompts.load("compact")
ASKED = questions(3)


def score_settings(**changes):
    values = {"scores": 3, "score_temperature": 1.0, "score_top_p": 1.0, "max_score_tokens": 64}
    return SimpleNamespace(**(values | changes))


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("Good. Score: 4", 4),
        ("score: 4/5", 4),
        ("**Score:** 3", 3),
        ("Score: **2**.", 2),
        ("Total Score = 3.5", 3.5),
        ("The score is 4.", 4),
        ("Score: <4>", 4),
        ("Score (out of 5): 4", 4),
        ("Score: 4 out of 5", 4),
        ("Score: 1 + 1 + 1 = 3", 3),
        (r"Score: $\boxed{3}$/5", 3),
        ("Score:\n4", 4),
        ("Score: 2\nOn reflection,\nScore: 5", 5),
        ("Score: 0", 0),
        ("Score: 7", None),
        ("Score: 45", None),
        ("Score: -1", None),
        ("Score: 8/10", None),
        ("Score: 4 out of 10", None),
        ("Score: 4\nScore: 12", None),
        ("Score: <total points>", None),
        ("Score: five", None),
        ("the scores of 1 and 2 games", None),
        ("4/5", None),
        ("", None),
    ],
)
def test_points_are_read_from_many_spellings_and_nothing_else(text, points):
    assert PAPER.points(text) == points


def test_the_compact_family_has_a_mark_of_its_own():
    assert COMPACT.points("80 end = 80 end yes 5. Solution: 5.") == 5
    assert COMPACT.points("Step 2: so 3. 3 = 3 yes 2.") is None


def test_points_inside_a_solution_are_no_points():
    for family, text in ((PAPER, "I give it Score: 5"), (COMPACT, "Step 1: Solution: 5.")):
        asked = family.score("What is the score?", text).user
        assert family.points(asked.split("<response>")[-1].split("</response>")[0]) is None
    assert "What is the score?" in PAPER.score("What is the score?", "4").user, "left as it is"


def test_prompts_hold_question_and_solution():
    assert COMPACT.score("Q?", "Step 1: a.\nStep 2: b.").user == (
        "Problem: Q?\nSolution:\nStep 1: a.\nStep 2: b.\nReview:"
    )
    asked = PAPER.score("Q?", "Step 1: a.").user
    assert "User: Q?" in asked and "<response>Step 1: a.</response>" in asked


def judge(prompt, seed, k):
    """Points by the solution's letter; every third justification can't be read."""
    letter = prompt.split("\nReview:")[0][-1]
    return ("no points" if k == 2 else f"so Solution: {'abcdef'.index(letter)}."), "eos"


def test_solutions_are_scored_several_times_in_one_call():
    engine = Scripted(judge)
    items = [(ASKED[0], "c"), (ASKED[1], "f"), (ASKED[0], "c")]
    found = score_solutions(engine, COMPACT, None, items, score_settings())
    assert [one.points for one in found] == [(2, 2, None), (5, 5, None), (2, 2, None)]
    assert [one.mean for one in found] == [2, 5, 2] and found[0].unreadable == 1
    assert engine.batches == 1 and len(engine.asked) == 2, "equal texts are asked about once"
    assert found[0].tokens == 2 + 3 * 0 + 3 + 3 and found[0] is found[2]
    assert score_solutions(engine, COMPACT, None, [], score_settings()) == []


def test_noise_belongs_to_seed_question_and_text():
    engine = Scripted(lambda prompt, seed, k: (f"Solution: {(seed + k) % 6}.", "eos"))
    items = [(q, text) for q in ASKED for text in "ab"]

    def scored(chosen, seed=1):
        found = score_solutions(engine, COMPACT, None, chosen, score_settings(), seed)
        return [one.points for one in found]

    every = scored(items)
    assert scored(items[::-1]) == every[::-1] and scored(items[2:3]) == every[2:3]
    first = seed_of(1, "score", ASKED[0].id, "a")
    assert every[0] == tuple((first + k) % 6 for k in range(3))
    assert len(set(every)) > 1 and scored(items, seed=2) != every


def test_equal_scores_on_purpose_are_refused_and_one_greedy_score_is_not():
    engine = Scripted(judge)
    with pytest.raises(PSRError, match=r"3 scores that can only be equal; set srlm\.scores to 1"):
        score_solutions(engine, COMPACT, None, [], score_settings(score_temperature=0))
    greedy = score_settings(score_temperature=0, scores=1)
    assert score_solutions(engine, COMPACT, None, [(ASKED[0], "d")], greedy)[0].mean == 3


def test_a_prompt_that_is_too_long_has_no_points():
    engine = Scripted(lambda *_: ("", "overflow"))
    found = score_solutions(engine, COMPACT, None, [(ASKED[0], "a")], score_settings())
    assert found[0].overflow and found[0].mean is None and found[0].unreadable == 3


def test_stats_count_unreadable_points_and_the_spread():
    stats = score_stats([Scored((5.0, 3.0, None)), Scored((0.0, 0.0, 0.0)), Scored((None,))])
    assert stats["scores"] == 7 and stats["unreadable"] == 2 / 7
    assert stats["mean"] == 8 / 5 and stats["spread"] == (2 + 0) / 2
    assert [stats[f"points_{k}"] for k in range(6)] == [0.6, 0, 0, 0.2, 0, 0.2]
    assert set(score_stats([]).values()) == {0}


# --- the oracle

TEXT = "Tom has 47 pens. Tom buys 38 pens. Tom sells 5 pens. How many pens does Tom have?"
FIRST, LAST = problems.parse(TEXT).solution()


def test_a_right_solution_gets_full_points_and_a_wrong_one_points_up_to_its_flaw():
    text, points = review(TEXT, [FIRST, LAST])
    assert points == 5
    assert text == f"{FIRST} 85 = 85 yes 1. {LAST} 80 end = 80 end yes 5. Solution: 5."
    wrong = LAST.replace("80", "70")
    text, points = review(TEXT, [FIRST, wrong])
    assert points == 1
    assert text == f"{FIRST} 85 = 85 yes 1. {LAST} 70 end = 80 end no 1. Solution: 1."
    assert review(TEXT, [FIRST.replace("85", "75"), LAST]) == (
        f"{FIRST} 75 = 85 no 0. Solution: 0.", 0
    )  # fmt: skip
    early = f"{FIRST} The answer is \\boxed{{85}}."
    assert review(TEXT, [early])[1] == 0 and "85 end = 85 no 0." in review(TEXT, [early])[0]
    assert review(TEXT, ["pens"])[0].endswith("none = 85 no 0. Solution: 0.")


def test_only_a_complete_right_solution_gets_five_whatever_its_length():
    rng = random.Random(0)
    for level in LEVELS.values():
        for _ in range(20):
            puzzle = make_puzzle(level, rng)
            steps = puzzle.solution()
            assert review(puzzle.text(), steps)[1] == 5
            for k in range(len(steps)):
                assert review(puzzle.text(), steps[:k])[1] == min(k, 4), "one that stops short"


def example(steps, points=0):
    return ScoreExample(id="s/0", problem_id="p/0", question=TEXT, solution="\n".join(steps),
                        points=points, explanation="", right=True)  # fmt: skip


ALL = ("recompute", "copy", "compare", "count")


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (("", ""), ()),
        ((f"{FIRST} 85 = 85", f"{FIRST.replace('7 + 8', '7 + 9')} 85 = 85"), ("recompute",)),
        (("85 = 85 yes 1.", "84 = 85 no 0."), ("copy", "count")),
        (("70 end = 80 end no 1.", "70 end = 80 end yes 5."), ("compare", "count")),
        (("Solution: 1.", "Solution: 2."), ("count",)),
        (("no 1. Solution: 1.", "no 2. Solution: 2."), ("count",)),
    ],
)
def test_each_skill_is_missed_alone(change, missed):
    row = example([FIRST, LAST.replace("80", "70")])
    text = review(TEXT, row.solution.split("\n"))[0]
    assert change[0] in text
    found = skills(row, text.replace(*change, 1))
    assert {name for name in ALL if not found[name]} == set(missed)


def test_nonsense_has_no_skill():
    assert not any(skills(example([FIRST]), "Solution: 5.").values())
