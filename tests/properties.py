"""Properties, by hypothesis: the same examples on every run, few in `make test`, many in `make test-all`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

FEW, MANY = 60, 3000


def holds(few: int = FEW, many: int = MANY, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of what a function asserts for every value of the strategies.

    Args:
        few: examples of `make test`.
        many: of `make test-all`.
        strategies: by the names of the function's arguments.
    """
    counts = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("count", counts)
        def test(count: int) -> None:
            chosen = settings(
                max_examples=count,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            chosen(given(**strategies)(check))()

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate
