"""Steps of answers: what is counted, and its averages against plain loops."""

from types import SimpleNamespace

import pytest

from psr_lib import models, step_counts

WORDS = lambda texts: [len(text.split()) for text in texts]  # noqa: E731


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Step 1: 2 + 2 = 4.\nStep 2: so 4.", (2, 7, 7)),
        ("no mark at all", (1, 4, 4)),
        ("", (0, 0, 0)),
        ("Step 1: a\nb c\nStep 2:", (2, 3, 3)),
    ],
)  # fmt: skip
def test_marks_are_not_counted(text, counts):
    around = answers("Step 1: p q r s t", text, "Step 1: u v")
    row = step_counts.answer_rows("psrlm/M1", around, WORDS)[1]
    assert tuple(row[name] for name in step_counts.MEASURES) == counts


def test_tokens_are_the_given_counters():
    (found,) = step_counts.answer_rows("x", answers("Step 1: ab cd"), lambda texts: map(len, texts))
    assert (found["steps"], found["tokens"], found["words"]) == (1, 5, 2)


def test_many_texts_have_the_ids_of_each_alone(tmp_path):
    from tiny_model import make_tiny_model

    _, tokenizer = make_tiny_model(tmp_path / "model")
    texts = ["1 + 2 = 3", "", "Step 1: 4"]
    assert models.texts_ids(tokenizer, texts) == [models.text_ids(tokenizer, t) for t in texts]
    assert models.texts_ids(tokenizer, []) == []


def test_a_text_that_several_models_wrote_is_counted_once():
    asked = []

    def tokenizer(texts, add_special_tokens):
        asked.extend(texts)
        return SimpleNamespace(input_ids=[text.split() for text in texts])

    count = step_counts.counter(tokenizer)
    assert list(count(["a b", "c", "a b"])) == [2, 1, 2]
    assert list(count(["c", "d e f"])) == [1, 3] and list(count(["c"])) == [1]
    assert asked == ["a b", "c", "d e f"]


def answers(*texts, name="easy"):
    return [{"benchmark": name, "problem_id": f"{name}/{k}", "text": text}
            for k, text in enumerate(texts)]  # fmt: skip


def rows():
    one = "Step 1: a b\nStep 2: c"
    first = answers(one, "Step 1: a", one) + answers("Step 1: a b c d", name="hard")
    second = answers("Step 1: a b c", one, one) + answers("Step 1: a", name="hard")
    return [*step_counts.answer_rows("psrlm/M1", first, WORDS),
            *step_counts.answer_rows("psrlm/M2", second, WORDS)]  # fmt: skip


def test_a_notebook_shows_each_models_mean_with_its_interval():
    shown = step_counts.shown(step_counts.table(rows()))
    assert [(row["model"], row["answers"]) for row in shown] == [("psrlm/M1", 4), ("psrlm/M2", 4)]
    mean = next(r for r in step_counts.table(rows()) if r["benchmark"] == "mean")
    values = [mean[name] for name in ("number", "number_low", "number_high")]
    assert shown[0]["steps an answer"] == "{:.2f} [{:.2f}, {:.2f}]".format(*values)


def test_averages_are_over_answers_and_over_all_steps():
    table = {(row["model"], row["benchmark"]): row for row in step_counts.table(rows())}
    easy = table["psrlm/M1", "easy"]
    assert (easy["n"], easy["number"]) == (3, pytest.approx(5 / 3))
    assert easy["length"] == pytest.approx(7 / 5) and easy["total"] == pytest.approx(7 / 3)
    assert easy["number_low"] <= easy["number"] <= easy["number_high"]
    mean = table["psrlm/M1", "mean"]
    assert mean["number"] == pytest.approx((5 / 3 + 1) / 2)
    assert mean["length"] == pytest.approx((7 / 5 + 4) / 2) and mean["n"] == 4


def test_rows_are_sorted_as_outcomes_are():
    mixed = answers("Step 1: a", "Step 1: b", name="z") + answers("Step 1: c", name="a")
    found = step_counts.answer_rows("psrlm/M1", mixed[::-1], WORDS)
    assert [row["problem_id"] for row in found] == ["a/0", "z/0", "z/1"]


def test_a_method_without_an_m1_of_its_own_is_shown_from_the_shared_one():
    table = step_counts.table([*rows(), *(r | {"place": "ift-more/M2"} for r in rows()[:4])])
    found = step_counts.curve(table, "ift-more")
    assert {one["model"] for one in found} == {"M1", "M2"}
    own = step_counts.curve(table, "psrlm")
    assert {one["panel"] for one in own} == {"number", "length", "total"}
    one = next(o for o in own if (o["panel"], o["series"], o["model"]) == ("number", "easy", "M2"))
    assert one["value"] == pytest.approx(5 / 3) and one["low"] <= one["value"] <= one["high"]


def test_no_answers_give_no_table():
    assert step_counts.table([]) == [] == step_counts.curve([], "psrlm")
    assert step_counts.by_place([]) == {}
