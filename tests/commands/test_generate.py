"""`steerlm generate`: a prompt, steered."""

import pytest


def test_generate_steers_the_prompt(steerlm, root):
    ended = steerlm(
        "generate", root, "--attributes", "verbosity:0", "--candidates", 2, "Tell me about a fox by the sea."
    )
    assert ended.code == 0
    assert ended.out.count("[verbosity:0,mood:2]  measured: verbosity ") == 2


def test_generate_without_a_prompt_shows_each_level(steerlm, root):
    ended = steerlm("generate", root, "--attributes", "verbosity:1", "--iteration", "policy-0")
    assert ended.code == 0
    assert [level for level in range(5) if f"verbosity:1,mood:{level}" in ended.out] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attributes", "verbosty:1"), "did you mean 'verbosity'?"),
        (("--attributes", "mood:7"), "must be an integer from 0 to 4"),
        (("--attributes", "mood=1"), "not of the form name:level"),
        (("--iteration", "last"), "none of: best, policy-0"),
        (("--iteration", "9"), "This run has: policy-0, 0, 1"),
        (("--attributes", "mood:1", "fox " * 300), "context of 256"),
    ],
)
def test_generate_explains_mistakes(steerlm, root, words, said):
    ended = steerlm("generate", root, *words)
    assert ended.code == 2
    assert said in ended.err
