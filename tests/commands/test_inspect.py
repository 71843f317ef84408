"""`steerlm inspect`: one group, and its numbers add up."""

import re

import pytest

from steerlm_core.run import open_run


def test_inspect_shows_tokens_and_weights_of_a_group(steerlm, root):
    ended = steerlm("inspect", root, "--iteration", 0, "--split", "train")
    assert ended.code == 0
    for word in ("target", "verbosity:", "masked in the loss", "log P(a|x,y)", "ws", "candidate 2:"):
        assert word in ended.out
    assert len(re.findall(r"\S+ -\d+\.\d\d", ended.out)) > 6
    name = ended.out.split()[1]
    assert steerlm("inspect", root, "--split", "train", "--group", name[:8]).out == ended.out
    unknown = steerlm("inspect", root, "--split", "train", "--group", "zzz")
    assert unknown.code == 2
    assert name in unknown.err


def test_inspect_adds_up(root):
    from steerlm_core.commands.inspect import read_group
    from steerlm_core.raters import sentiment, word_count
    from steerlm_core.report.run_view import RunView

    weighed, candidates = read_group(RunView(open_run(str(root))), 0, "", "held_out")
    assert [row["index"] for row in candidates] == weighed["index"]
    for row in candidates:
        assert len(row["token_log_q"]) == len(row["response_ids"])
        assert sum(row["token_log_q"]) == pytest.approx(row["log_q"], abs=1e-3)
        assert len(row["predicted"]) == 2
        assert row["measured"] == pytest.approx([word_count(row["text"]), sentiment(row["text"])], abs=1e-6)


def test_inspect_of_an_iteration_that_is_not_there(steerlm, root):
    ended = steerlm("inspect", root, "--iteration", 7)
    assert ended.code == 2
    assert "iterations/007" in ended.err
