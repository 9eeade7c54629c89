"""What notebooks read only to show it."""

from psr_lib import looking


def test_counts_are_shown_whole_and_shares_with_three_digits():
    found = {"pairs": 12345, "tie_rate": 0.45678, "none": None, "accuracy": 1.0}
    assert looking.numbers(found) == {
        "pairs": "12,345", "tie_rate": "0.457", "none": "-", "accuracy": "1.000",
    }  # fmt: skip
