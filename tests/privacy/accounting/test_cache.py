"""What is remembered is not used where it must not be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.privacy.accounting.cache import remembered, unremembered


def test_within_the_block_nothing_is_read_or_kept(own_cache: Path) -> None:
    assert remembered("epsilon", {"of": 1}, lambda: 2.0) == 2.0
    with unremembered():
        assert remembered("epsilon", {"of": 1}, lambda: 3.0) == 3.0
        assert remembered("epsilon", {"of": 2}, lambda: 4.0) == 4.0
        # Computed once, whoever asks.
        assert remembered("epsilon", {"of": 1}, lambda: 5.0, anew=True) == 3.0
    with unremembered():
        assert remembered("epsilon", {"of": 1}, lambda: 6.0) == 6.0
    assert remembered("epsilon", {"of": 1}, lambda: 3.0) == 2.0
    assert len(list(own_cache.rglob("*.json"))) == 1
    with pytest.raises(ZeroDivisionError), unremembered():
        remembered("epsilon", {"of": 1}, lambda: 1 / 0)
    assert remembered("epsilon", {"of": 1}, lambda: 3.0) == 2.0
