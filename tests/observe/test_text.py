"""Numbers in words."""

from steerlm_core.observe.text import duration, interval, iteration_line, printable, rate
from tests.observe.said import EVALUATION


def test_words_of_numbers():
    assert [duration(s) for s in (0.42, 12.4, 59.7, 185, 3725)] == ["0.4 s", "12 s", "60 s", "3:05", "1:02:05"]
    assert [rate(r, "groups") for r in (0.25, 2.04, 350.0)] == ["4.0 s per group", "2.0 groups/s", "350 groups/s"]
    assert interval({"mean": 0.5, "low": 0.25, "high": 1}) == "0.500 [0.250, 1.000]"
    assert interval(None) == "–"
    assert "not accepted" in iteration_line(0, {**EVALUATION, "kind": "regressed", "accepted": False})
    assert printable("a\x1b]0;title\x07\n\u202eb") == "a\\x1b]0;title\\x07\n\\u202eb"
