"""`steerlm status`."""


def test_status_names_every_step_and_iteration(steerlm, root):
    ended = steerlm("status", root)
    assert ended.code == 0
    for word in ("prepare: done", "generate", "score_prior", "decide", "outcome", "On fresh candidates"):
        assert word in ended.out
