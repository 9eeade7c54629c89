"""EFT of the baseline from the chain: the policy's own solutions, and the three teachers."""

from types import SimpleNamespace

import chain_runs
import pytest
from teacher_server import SECRET, TeacherServer, settings

from psr_lib import chain, prompts, score_chain, score_data, score_teachers
from psr_lib.contests import Contest, sampled
from psr_lib.engines.base import Completion
from psr_lib.problems import parse
from psr_lib.records import Problem, PSRError, Question, ScoreExample, read_jsonl
from psr_lib.rule_scores import review
from psr_lib.solution_traces import SolutionTrace
from psr_lib.steps import boxed

WORKED = "Half of 48 is 48 / 2 = 24. Together 48 + 24 = 72. The answer is \\boxed{72}."


def ended(answer, finish="stop"):
    return Completion(f"Step 1: The answer is \\boxed{{{answer}}}.", 9, finish, 5)


def trace(k, *completions):
    found = SolutionTrace(Question(id=f"q{k}", text=f"Question {k}?"))
    for completion in completions:
        found.take(completion)
    return found


def problem(k):
    return Problem(id=f"q{k}", source="t", question=f"Question {k}?", answer="7",
                   solution=WORKED, meta={"level": "easy"})  # fmt: skip


# --- contests of sampled solutions ---------------------------------------------------------------


def test_a_contest_has_one_right_and_one_wrong_solution_that_came_to_an_end():
    traces = [
        trace(0, ended(7), ended(8), ended(7)),
        trace(1, ended(7), ended(7)),
        trace(2, ended(8), ended(9)),
        trace(3, ended(7), ended(8, finish="length")),
    ]
    (found,) = sampled([problem(k) for k in range(4)], traces, 0)
    assert (found.problem_id, found.gold, found.level) == ("q0", "7", "easy")
    assert [boxed(text) for text in found.solutions] == ["7", "8"]


def test_which_of_several_is_drawn_hangs_on_the_seed_and_the_problem_alone():
    traces = [trace(k, ended(7), *map(ended, range(10, 60))) for k in range(2)]
    drawn = [[c.solutions[1] for c in sampled([problem(0), problem(1)], traces, s)] for s in (0, 1)]
    assert drawn[0] != drawn[1] and drawn[0][0] != drawn[0][1]
    (alone,) = sampled([problem(1)], traces[1:], 0)
    assert alone.solutions[1] == drawn[0][1]


# --- the stage -----------------------------------------------------------------------------------


class Policy:
    """An engine whose solutions of a question are right, wrong, right, ..."""

    honours_seeds, tokenizer = True, None

    def __init__(self):
        self.asked = []

    def sample(self, texts, *, n, seeds, **_):
        """Solutions of the laboratory's questions."""
        self.asked += texts
        return [[self._one(text, k) for k in range(n)] for text in texts]

    def _one(self, text, k):
        puzzle = parse(text.split("Problem: ")[-1].split("\nSolution")[0])
        steps = puzzle.solution()
        if k % 2:
            steps = [*steps[:-1], f"Step {len(steps)}: The answer is \\boxed{{{99 + k}}}."]
        return Completion("\n".join(steps), 9, "stop", 5)


@pytest.fixture
def policy(monkeypatch):
    """The engine that the stage gets; no model is trained."""
    engine = Policy()
    monkeypatch.setattr(chain, "policy", lambda stage, ift: stage.model(0))
    monkeypatch.setattr(chain, "open_engine", lambda stage, folder: engine)
    return engine


@pytest.fixture
def stage(copied, monkeypatch):
    """The baseline's data stage on a finished one of the chain."""
    chain_runs.by_the_runner(monkeypatch)
    return chain_runs.opened(copied, method="srlm")


def test_the_problems_that_were_searched_are_kept_with_their_answers(made):
    rows = chain_runs.rows_of(made, "eft_problems", Problem)
    assert len(rows) == 14 and {row.id.split("/")[0] for row in rows} == {"tree"}
    assert all(row.answer == str(parse(row.question).answer()) for row in rows)
    assert {row.question for row in chain_runs.rows_of(made, "eft", score_data.JudgeExample)} <= {
        row.question for row in rows
    }


def test_the_stage_scores_what_the_policy_wrote(stage, policy):
    rows = score_data.make_data(stage)
    train = read_jsonl(stage.folder / "eft_scores.jsonl", ScoreExample)
    apart = read_jsonl(stage.folder / "eft_scores_heldout.jsonl", ScoreExample)
    assert rows == {"eft_scores": len(train), "eft_scores_heldout": len(apart)}
    assert [row.right for row in apart] == [True, False] * (len(apart) // 2) and apart
    assert not {row.question for row in train} & {row.question for row in apart}
    for row in [*train, *apart]:
        assert row.right == (boxed(row.solution) == str(parse(row.question).answer()))
        assert prompts.load("compact").points(row.explanation) == row.points
        assert (row.points == 5) == row.right
    assert len(policy.asked) == 14 and stage.counts["solutions_sampled"] == 28
    assert stage.counts["contests"] == stage.counts["eft_scores_contests"] == 14


def test_a_stage_that_was_cut_short_asks_only_for_what_is_left(stage, policy, monkeypatch):
    add, kept = score_chain.Journal.add, []

    def broken(journal, place, found):
        if len(kept) == 5:
            raise PSRError("no more")
        kept.append(place)
        add(journal, place, found)

    with monkeypatch.context() as patch, pytest.raises(PSRError, match="5 of 14 searches are kept"):
        patch.setattr(score_chain.Journal, "add", broken)
        score_data.make_data(stage)
    policy.asked.clear()
    score_data.make_data(stage)
    assert len(policy.asked) == 9


def test_solutions_of_other_questions_are_not_taken(stage, policy, monkeypatch):
    score_data.make_data(stage)
    policy.asked.clear()
    rows = read_jsonl(stage.input(score_chain.PROBLEMS), Problem)
    monkeypatch.setattr(score_chain, "read_jsonl", lambda path, kind: rows[1:])
    score_chain._solved(stage, rows[1:])
    assert len(policy.asked) == 13


def test_too_few_contests_are_an_error_that_says_what_to_raise(stage, policy, monkeypatch):
    monkeypatch.setattr(policy, "_one", lambda text, k: ended(99))
    with pytest.raises(PSRError, match=r"0 scored pairs are left of 0; raise tree.questions or"):
        score_data.make_data(stage)


def test_the_stage_depends_on_the_policy_and_the_teacher(stage):
    assert {"srlm", "tree", "sft", "teacher", "engine"} <= set(stage.params)
    assert not {"prm", "annotate", "search"} & set(stage.params)


# --- teachers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "points", "line"),
    [
        (["Step 1: 48 / 2 = 24.", "Step 2: 48 + 24 = 72.", "Step 3: It is \\boxed{72}."], 5, "72"),
        (["Step 1: 48 / 2 = 24.", "Step 2: 48 + 24 = 71, so \\boxed{71}."], 1, "is wrong, since"),
        (["Step 1: 48 / 2 = 26.", "Step 2: It is \\boxed{72}."], 0, "48 / 2 = 26 is wrong"),
        (["Step 1: 48 * 2 = 96.", "Step 2: It is \\boxed{96}."], 0, "but 96 is not needed"),
        (["Step 1: Let me think.", "Step 2: It is \\boxed{72}."], 5, "nothing that can be checked"),
    ],
)
def test_the_rule_counts_needed_steps_and_stops_at_the_first_wrong_one(steps, points, line):
    text, found = review(WORKED, steps)
    assert found == points and line in text
    assert prompts.load("paper").points(text) == points


def test_the_rule_gives_no_points_without_a_worked_solution():
    assert review("", ["Step 1: 1 + 1 = 2."]) == ("", None)


def contest(k):
    texts = f"Step 1: It is \\boxed{{{k}}}.", "Step 1: It is \\boxed{-1}."
    return Contest(f"q{k}", f"Question {k}?", str(k), texts, "sampled", "")


def points_of(messages):
    """A teacher that likes no negative answers."""
    text = messages[0]["content"]
    return "Fine.\nScore: 1" if "-1" in text else "Fine.\nScore: 4"


def test_a_model_behind_an_api_scores_and_is_paid_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    found = [contest(k) for k in range(3)]
    with TeacherServer(points_of).running() as server:
        for calls in (6, 0):
            counts = {}
            stage = SimpleNamespace(
                preset=SimpleNamespace(teacher=settings(server.url, judge="api")),
                run=SimpleNamespace(paid=tmp_path), count=lambda to=counts, **n: to.update(n),
            )  # fmt: skip
            with score_teachers.opened(stage, found, {}) as teacher:
                pairs, left = score_data.judged(found, teacher, "s")
            assert counts["score_calls_now"] == calls and counts["score_calls"] == 6
            assert counts["score_answers_kept"] == 6
    assert [[row.points for row in pair] for pair in pairs] == [[4, 1]] * 3
    assert left["misordered"] == left["unreadable"] == 0
    assert "6 calls to make" in capsys.readouterr().out


def test_a_teacher_that_scores_nothing_is_named(copied):
    stage = SimpleNamespace(preset=SimpleNamespace(teacher=settings(judge="orakel")))
    with pytest.raises(PSRError, match="orakel"):
        score_teachers.opened(stage, [], {})
