"""EFT of the baseline: contests, the filter by final answers, thinning, and the stage's files."""

import random
from collections import Counter

import pytest

from psr_lib import presets, problems, prompts, score_data, teachers, wordlevel
from psr_lib.contests import Contest, built, wrong_solution
from psr_lib.problems import LEVELS, make_puzzle
from psr_lib.records import JudgeExample, PSRError, ScoreExample, read_jsonl, write_jsonl
from psr_lib.score_filters import judged, thinned
from psr_lib.score_teachers import OracleScorer, Said
from psr_lib.steps import boxed, is_final

SHARES = {"easy": 1, "words": 1, "big": 1, "distractor": 4, "start": 1, "long": 2, "mixed": 3}


@pytest.fixture(scope="module")
def eft():
    return teachers.eft_rows(300, 3, set(), SHARES)


@pytest.fixture(scope="module")
def pairs(eft):
    return judged(built(eft, 3), OracleScorer(), "scores")


@pytest.mark.parametrize("level", LEVELS)
def test_wrong_solutions_are_wrong_well_formed_and_come_to_an_end(level):
    rng, flaws, places = random.Random(1), Counter(), set()
    for _ in range(200):
        puzzle = make_puzzle(LEVELS[level], rng)
        found = wrong_solution(puzzle, rng)
        if found is None:
            continue
        steps, flaw = found
        flaws[flaw] += 1
        assert steps != puzzle.solution() and is_final(steps[-1])
        assert all(problems.read_step(step) for step in steps)
        assert not any(is_final(step) for step in steps[:-1])
        right = puzzle.solution()
        places.add(next(k for k, s in enumerate(steps) if k >= len(right) or s != right[k]))
    assert len(flaws) >= 5 and flaws["noisy author"] > 10 and len(places) > 1


def test_both_judges_learn_on_the_same_problems(eft):
    found = built(eft, 3)
    assert len(found) > 0.95 * len(eft)
    assert {c.question for c in found} <= {row.question for row in eft}
    assert built(eft[::-1], 3)[::-1] == found, "each draw belongs to its row"
    assert built(eft, 4) != found


def test_scores_are_ordered_as_the_final_answers(pairs):
    kept, counts = pairs
    assert len(kept) == counts["contests"] - counts["undecided"] > 280
    for right, wrong in kept:
        gold = str(problems.parse(right.question).answer())
        assert right.right and boxed(right.solution) == gold and right.points == 5
        assert not wrong.right and boxed(wrong.solution) != gold and wrong.points < 5
        assert right.problem_id == wrong.problem_id and right.question == wrong.question
        for row in (right, wrong):
            assert prompts.load("compact").points(row.explanation) == row.points


def contest(right="1", wrong="2"):
    texts = tuple(f"Step 1: The answer is \\boxed{{{answer}}}." for answer in (right, wrong))
    return Contest("p/0", "1?", "1", texts, "slip", "easy")


class Scripted:
    """A teacher that says what a function of the solution gives."""

    concurrency = 2

    def __init__(self, says):
        self.says, self.asked = says, []

    def score(self, question, solution):
        """The script's answer."""
        self.asked.append(solution)
        return Said(*self.says(solution))


def test_what_the_filter_leaves_out_is_counted():
    said = {"1": ("fine", 4.0), "2": ("wrong", 1.0), "3": ("odd", None), "5": ("lavish", 5.0)}
    teacher = Scripted(lambda solution: said[boxed(solution)])
    found = [contest(), contest("2", "1"), contest("1", "1"), contest("2", "5"), contest("1", "3"),
             contest("1", "5"), contest("1", "2")]  # fmt: skip
    kept, counts = judged(found, teacher, "s")
    assert counts == {"contests": 7, "undecided": 2, "unreadable": 1, "misordered": 1}
    assert [[(row.id, row.points, row.right) for row in pair] for pair in kept] == [
        [(f"s/{k}.0", 4, True), (f"s/{k}.1", 1, False)] for k in range(3)
    ]
    assert [kept[0][1].meta["flaw"], kept[0][0].meta["flaw"]] == ["slip", ""]
    assert len(teacher.asked) == len(set(teacher.asked)) == 4, "each solution once, undecided never"
    assert judged([contest()], Scripted(lambda solution: ("same", 3.0)), "s")[1]["misordered"] == 1


def test_the_most_common_score_is_thinned_out(pairs):
    rows = [row for pair in pairs[0] for row in pair]
    kept = thinned(rows, 0.34, random.Random(0))
    points = Counter(row.points for row in kept)
    assert 0.32 < points[5] / len(kept) <= 0.34
    assert all(points[k] == sum(row.points == k for row in rows) for k in range(5))
    assert len({row.id for row in kept}) == len(kept) and kept != sorted(kept, key=lambda r: r.id)
    assert len(thinned(rows, 1.0, random.Random(0))) == len(rows)
    assert thinned([], 0.5, random.Random(0)) == []


def test_justifications_are_words_of_the_laboratory(pairs):
    tokenizer, family = wordlevel.build(), prompts.load("compact")
    for row in [row for pair in pairs[0][:60] for row in pair]:
        text = f"{family.score(row.question, row.solution).user} {row.explanation}"
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text


class FakeStage:
    """What `make_data` needs of a stage under srlm."""

    seed, method = 0, "srlm"

    def __init__(self, folder, *overrides):
        self.folder, self.counts = folder, {}
        self.preset = presets.load("smoke", overrides)

    def input(self, name):
        return self.folder / name

    def output(self, name):
        return self.folder / name

    def count(self, **numbers):
        self.counts.update(numbers)


def test_the_stage_writes_as_many_rows_as_the_step_judge_has(tmp_path):
    stage, taken = FakeStage(tmp_path), set()
    data = stage.preset.data
    train = teachers.eft_rows(data.eft, 0, taken, data.eft_shares)
    heldout = teachers.eft_rows(data.eft_heldout, 0, taken, name="eft_heldout")
    write_jsonl(tmp_path / "data/eft.jsonl", train)
    write_jsonl(tmp_path / "data/eft_heldout.jsonl", heldout)
    rows = score_data.make_data(stage)
    assert rows == {"eft_scores": data.eft, "eft_scores_heldout": data.eft_heldout}
    made = read_jsonl(tmp_path / "eft_scores.jsonl", ScoreExample)
    apart = read_jsonl(tmp_path / "eft_scores_heldout.jsonl", ScoreExample)
    assert [row.right for row in apart] == [True, False] * (data.eft_heldout // 2)
    assert {row.question for row in apart} <= {row.question for row in heldout}
    assert not {row.question for row in made} & {row.question for row in apart}
    assert stage.counts["eft_scores_contests"] >= data.eft - 5
    assert score_data.scored_rows(stage, rows) == made
    table = score_data.eft_table(stage, made)
    assert sum(row["rows"] for row in table) == data.eft and table[-1]["score"] == "5"
    assert read_jsonl(tmp_path / "data/eft.jsonl", JudgeExample) == train, "left as it was"


def test_a_preset_without_eft_has_none_to_score(tmp_path):
    with pytest.raises(PSRError, match=r"srlm: data.eft_from=none makes no EFT; take chain"):
        score_data.make_data(FakeStage(tmp_path, "data.eft_from=none"))
