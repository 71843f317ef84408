"""The probe of a store before its use."""

import pytest

from steerlm_core.errors import StoreError
from steerlm_core.store.probe import probe


def test_the_probe_passes_and_leaves_nothing(store):
    probe(store)
    assert list(store.listing()) == []


@pytest.mark.parametrize("ignored", ["create", "swap"])
def test_a_store_without_conditional_puts_is_refused(store, monkeypatch, ignored):
    def ignores(key: str, data: bytes, *_: object) -> bool:
        store.put(key, data)
        return True

    monkeypatch.setattr(store, ignored, ignores)
    with pytest.raises(StoreError, match="this store ignores 'If-"):
        probe(store)
    assert list(store.listing()) == []
