"""`steerlm doctor` on this machine."""


def test_doctor_says_what_it_finds(steerlm):
    ended = steerlm("doctor")
    assert ended.code == 0
    for word in ("Python", "torch", "transformers", "memory", "disk"):
        assert word in ended.out
