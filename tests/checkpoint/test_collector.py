"""The collector of cycles, as it was before."""

from __future__ import annotations

import gc

import pytest

from vlconv.converters.checkpoint.collector import paused


@pytest.mark.parametrize("on", [True, False])
def test_it_is_off_meanwhile_and_then_as_it_was(on: bool) -> None:
    def inside() -> None:
        assert not gc.isenabled()
        with paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise LookupError

    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(LookupError):
            paused()(inside)()
        assert gc.isenabled() is on
    finally:
        (gc.enable if was_on else gc.disable)()
