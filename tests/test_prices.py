"""The price table and the estimate that a dry run prints."""

import pytest

from psr_lib import prices
from psr_lib.prices import Price, estimate, load
from psr_lib.records import PSRError

TABLE = {"big": Price(10.0, 40.0, "a page", "2026-01-01")}
ANSWERS = [{"letters": 100, "prompt_tokens": 20, "tokens": 300},
           {"letters": 300, "prompt_tokens": 60, "tokens": 500}]  # fmt: skip


def test_every_price_that_ships_has_a_source_and_a_date():
    found = load()
    assert found and all(price.source and price.date for price in found.values())


def test_without_answers_the_tokens_are_a_rule_of_thumb():
    found = estimate("big", ["x" * 400, "y" * 800], [], 1000, TABLE)
    assert (found.calls, found.prompt_tokens, found.tokens, found.measured) == (2, 300, 2000, 0)
    assert found.dollars == pytest.approx((300 * 10 + 2000 * 40) / 1e6)
    assert "2 calls to make, 0 answers there" in str(found) and "rule of thumb" in str(found)
    assert "0.08 US dollars at the price of 2026-01-01" in str(found)


def test_answers_say_how_many_tokens_a_call_takes():
    found = estimate("big", ["x" * 1000] * 3, ANSWERS, 99999, TABLE)
    assert (found.prompt_tokens, found.tokens, found.measured) == (600, 1200, 2)
    assert "as in 2 answers" in str(found)


def test_nothing_left_to_ask_costs_nothing():
    found = estimate("big", [], ANSWERS, 1000, TABLE)
    assert (found.calls, found.dollars) == (0, 0.0)


def test_an_unknown_price_is_said_and_not_guessed():
    found = estimate("other", ["x" * 400], [], 1000, TABLE)
    assert found.dollars is None and "price unknown, add other to" in str(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 3", "expected models"),
        ("big: 3", "big: expected the fields input, output, source, date"),
        ("big: {input: 1, output: 2, source: x}", "expected the fields"),
        ("big: {input: a, output: 2, source: x, date: 2026-01-01}", "field 'input'"),
        ("big: {input: 1, output: -2, source: x, date: 2026-01-01}", "field 'output'"),
        ("big: {input: 1, output: true, source: x, date: 2026-01-01}", "field 'output'"),
        ("big: {input: 1, output: 2, source: '', date: 2026-01-01}", "field 'source' is empty"),
        ("big: {input: 1, output: 2, source: x, date: }", "field 'date' is empty"),
        ("big: [", "unreadable"),
    ],
)
def test_a_wrong_table_names_file_model_and_field(tmp_path, text, words):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(PSRError) as caught:
        load(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_the_table_may_be_empty(tmp_path):
    (tmp_path / "prices.yaml").write_text("# none\n")
    assert prices.load(tmp_path / "prices.yaml") == {}
