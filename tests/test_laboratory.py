"""Authors, teachers, explanations, corpus and tokenizer of the small laboratory."""

import random
from itertools import islice

import pytest
from conftest import ROOT

from psr_lib import (
    authors,
    benchmarks,
    corpus,
    data_prep,
    problems,
    prompts,
    reviews,
    teachers,
    wordlevel,
)
from psr_lib.problems import LEVELS, make_puzzle, next_step, oracle_verdict
from psr_lib.records import JudgeExample, PSRError


@pytest.fixture(scope="module")
def tokenizer():
    return wordlevel.build()


@pytest.fixture(scope="module")
def eft():
    return teachers.eft_rows(400, seed=3, taken=set())


def test_careful_authors_are_right_and_noisy_ones_are_not_always():
    rng = random.Random(0)
    made = [make_puzzle(LEVELS[level], rng) for level in LEVELS for _ in range(60)]
    assert all(authors.solve(p, rng, authors.CAREFUL) == p.solution() for p in made)
    right = sum(authors.solve(p, rng) == p.solution() for p in made)
    assert 0.1 < right / len(made) < 0.6


def test_each_noise_rate_is_met():
    """A verb that 80 % misread is misread in about 80 % of single steps."""
    question = "Tom has 50 pens. Tom borrows 20 pens. How many pens does Tom have?"
    puzzle, rng = problems.parse(question), random.Random(0)
    rates = authors.Rates(misread=authors.NOISY.misread)
    wrong = sum("50 - 20" in authors.solve(puzzle, rng, rates)[0] for _ in range(2000))
    assert abs(wrong / 2000 - authors.NOISY.misread["borrows"]) < 0.03


@pytest.mark.parametrize("level", LEVELS)
def test_a_wrong_step_is_wrong_and_well_formed(level):
    rng, seen = random.Random(5), set()
    for _ in range(300):
        puzzle = make_puzzle(LEVELS[level], rng)
        prefix = puzzle.solution()[: rng.randrange(len(puzzle.path()))]
        step, flaw = authors.wrong_step(puzzle, prefix, rng)
        seen.add(flaw)
        assert step != next_step(puzzle, prefix)
        assert problems.read_step(step) is not None, step
    assert len(seen) >= 5


def test_eft_is_balanced_right_and_order_free(eft):
    assert sum(row.better == "A" for row in eft) == 200
    for row in eft:
        assert oracle_verdict(row.question, row.prefix, row.step_a, row.step_b) == row.better
        assert row.explanation.endswith(f"[[{row.better}]]")
        assert prompts.Family.verdict(row.explanation) == row.better
    by_level = {row.meta["level"]: 0 for row in eft}
    for row in eft:
        by_level[row.meta["level"]] += row.better == "A"
    assert "longer" not in by_level and min(by_level.values()) > 10


def test_a_teachers_explanation_has_all_three_skills(eft):
    assert all(all(reviews.skills(row, row.explanation).values()) for row in eft)


@pytest.mark.parametrize("skill", ["recompute", "copy", "compare"])
def test_each_skill_is_missed_alone(eft, skill):
    row = eft[0]
    right = next_step(problems.parse(row.question), row.prefix)
    key = reviews.key(right)
    lines = [reviews.compare("A", row.step_a, right), reviews.compare("B", row.step_b, right)]
    other = str(int(key.split()[0]) + 1) + key[len(key.split()[0]) :]
    if skill == "recompute":
        right = right.replace("so ", "so 9", 1)
        lines = [reviews.compare("A", row.step_a, right), reviews.compare("B", row.step_b, right)]
    if skill == "copy":
        lines[0] = f"A: {other} = {key} no."
    if skill == "compare":
        lines[0] = lines[0].replace("yes", "x").replace("no", "yes").replace("x", "no")
    found = reviews.skills(row, f"{right} {lines[0]} {lines[1]} [[A]]")
    assert found == {name: name != skill for name in ("recompute", "copy", "compare")}


def test_a_right_step_without_comparison_is_recomputed_but_not_compared(eft):
    right = next_step(problems.parse(eft[0].question), eft[0].prefix)
    found = reviews.skills(eft[0], f" {right} [[B]]")
    assert found == {"recompute": True, "copy": False, "compare": False}


def test_skills_of_nonsense_are_missing(eft):
    assert not any(reviews.skills(eft[0], "[[A]]").values())


def test_ift_shares_are_kept_and_unknown_levels_refused():
    rows = teachers.ift_rows(200, 0, set(), {"easy": 0.75, "long": 0.25})
    easy = sum(row.meta["level"] == "easy" for row in rows)
    assert easy == 150 and len({row.question for row in rows}) == 200
    assert all(problems.parse(row.question).solution() == row.steps for row in rows)
    with pytest.raises(PSRError, match="harder"):
        teachers.ift_rows(5, 0, set(), {"harder": 1.0})


def test_eft_shares_decide_the_levels_and_unknown_ones_are_refused():
    rows = teachers.eft_rows(300, 0, set(), {"easy": 1, "distractor": 3})
    hard = sum(row.meta["level"] == "distractor" for row in rows)
    assert {row.meta["level"] for row in rows} == {"easy", "distractor"} and 190 < hard < 260
    with pytest.raises(PSRError, match=r"eft_shares: unknown \['harder'\]"):
        teachers.eft_rows(5, 0, set(), {"harder": 1.0})


def test_every_laboratory_text_survives_the_tokenizer(tokenizer, eft):
    texts = list(islice(corpus.documents(11), 600))
    family = prompts.load("compact")
    texts += [family.judge(r.question, r.prefix, r.step_a, r.step_b).user for r in eft[:50]]
    unknown = tokenizer.unk_token_id
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert unknown not in ids, text
        assert tokenizer.decode(ids) == text


def test_marks_and_digits_are_single_tokens(tokenizer):
    for text in ("[[A]]", "[[B]]", "\\boxed{", "Step", "7"):
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == 1
    assert len(tokenizer("407", add_special_tokens=False).input_ids) == 3


def test_no_document_gives_the_judges_comparison():
    """The corpus holds the parts of judging but never a comparison of proposals with a verdict."""
    for text in islice(corpus.documents(4), 3000):
        if "Review:" in text and "[[" in text:
            assert " yes." not in text and " no." not in text


def test_shipped_benchmarks_are_the_ones_made_by_code(tmp_path):
    benchmarks.make_tiny(tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert len(made) == 12
    for name in made:
        assert (tmp_path / name).read_bytes() == (ROOT / "data/tiny" / name).read_bytes()
    assert len(benchmarks.questions_of(tmp_path)) == 12 * benchmarks.SIZE


def test_benchmarks_name_what_is_missing(tmp_path):
    with pytest.raises(PSRError, match="'easyy'"):
        benchmarks.load(ROOT / "data/tiny/test", ("easyy",), 5)
    with pytest.raises(PSRError, match="301"):
        benchmarks.load(ROOT / "data/tiny/test", ("easy",), 301)


class FakeStage:
    """What `make_pools` needs of a stage."""

    seed = 0

    def __init__(self, folder, preset):
        self.folder, self.preset = folder, preset

    def source(self, name):
        return ROOT / name

    def output(self, name):
        return self.folder / name


def test_pools_are_disjoint_from_each_other_and_from_the_benchmarks(tmp_path):
    from psr_lib import presets
    from psr_lib.records import IFTExample, Question, read_jsonl

    counts = data_prep.make_pools(FakeStage(tmp_path, presets.load("smoke")))
    kinds = {"ift": IFTExample, "eft": JudgeExample, "questions": Question}
    texts = []
    for name, rows in counts.items():
        found = read_jsonl(tmp_path / f"{name}.jsonl", kinds[name.split("_")[0]])
        assert len(found) == rows
        texts += [getattr(row, "question", None) or row.text for row in found]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & benchmarks.questions_of(ROOT / "data/tiny")
    assert "answer" not in (tmp_path / "questions_2.jsonl").read_text()
