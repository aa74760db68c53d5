"""Stands for slime's module of this name (624b824): whom it asks for a parameter, and with what."""

from __future__ import annotations

from typing import Any


def convert_to_hf(
    args: Any, model_name: str, name: str, param: Any, quantization_config: Any = None, transform_ue8m0: bool = True
) -> Any:
    """What update paths import: padding off, then `_convert_to_hf_core`, then quantisation."""
    ends = ("embedding.word_embeddings.weight", "output_layer.weight")
    return _convert_to_hf_core(args, model_name, name, param[: args.vocab_size] if name.endswith(ends) else param)


def _convert_to_hf_core(args: Any, model_name: str, name: str, param: Any) -> Any:
    return [("slime's own", param)]
