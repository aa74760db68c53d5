"""Stands for mbridge's module of this name (10cb17f): the registry of bridges, and how one exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

_MODEL_REGISTRY: dict[str, type] = {}


def register_model(model_types: str | list[str]) -> Callable[[type], type]:
    """The class is the bridge of these models from now on."""

    def decorated(bridge: type) -> type:
        _MODEL_REGISTRY.update(dict.fromkeys([model_types] if isinstance(model_types, str) else model_types, bridge))
        return bridge

    return decorated


class Bridge:
    """What all bridges are."""

    def __init__(self, hf_config: Any, experts: int = 0) -> None:
        self.hf_config, self.config = hf_config, SimpleNamespace(num_moe_experts=experts)
        self.export_weights_buff: dict[str, Any] = {}

    def export_weights(self, merged: dict[str, Any], keep_stacked_experts: bool = True) -> Iterator[tuple[str, Any]]:
        """Of parameters that were gathered over all ranks, under global names; the real one gathers them itself."""
        assert not self.export_weights_buff
        for name, param in merged.items():
            yield from zip(
                *self._weight_to_hf_format(name, param, keep_stacked_experts=keep_stacked_experts), strict=True
            )

    def _weight_to_hf_format(
        self, mcore_weights_name: str, mcore_weights: Any, keep_stacked_experts: bool = True
    ) -> Any:
        return ["mbridge's own"], [mcore_weights]
