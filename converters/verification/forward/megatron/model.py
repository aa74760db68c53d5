"""What megatron-core is asked to compute: the language model of a Megatron checkpoint, as its files hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec
from typing import Any

from ....checkpoint.mcore_side import McoreSide
from ....config.facts import runtime_facts
from ....config.hf_config import text_section
from ....config.written_args import args_to_write
from ....errors import shown
from ....models.shared.config import ModelConfig
from ....tensors.sharding import Topology
from ....tensors.spec import Box, TensorSpec, whole
from ...witnesses.transformers import memory_needed as needed_for
from ..batch import LENGTH

LIBRARY = "megatron-core"

OLDEST = (0, 16)
"""The first version that it was tried with."""

EXPERTS = ".experts.experts."
"""What is in the names of tensors that hold the experts of a layer on their first axis."""


def why_not(side: McoreSide) -> str | None:
    """Why megatron-core does not compute a side's language model, in words; None: it does."""
    c, layout = side.config.text, side.layout
    text = text_section(side.known.reference.config)[0]
    activation, window = text.get("hidden_act", "silu"), text.get("sliding_window")
    rope = runtime_facts(side.known.reference.config, language_config(side, None))["rope_type"].value
    if side.adapter:
        return "an adapter (LoRA) is merged on the way to Hugging Face, and Megatron's files hold it beside the weights"
    if c.headless:
        return "the model has no output layer, so there are no logits"
    if activation != "silu":
        return f"hidden_act is {shown(activation)}, and Megatron's args have a word for silu alone"
    if rope != "default":
        return f"positions are scaled ({shown(rope)}), for which Megatron's args have no word"
    if text.get("use_sliding_window") and isinstance(window, int) and window < LENGTH:
        return f"attention reaches back {window} tokens, for which Megatron's args have no word"
    if side.model.traits.linear_attention and layout.gdn != "core":
        return f"layout {layout.name} holds hybrid layers otherwise than megatron-core's own modules do"
    lacking = next((name for name in _own_names(side) if name not in side.reader.specs), None)
    if lacking:
        return f"layout {layout.name} holds the language model otherwise than megatron-core: there is no {lacking}"
    return _not_installed()


def _not_installed() -> str | None:
    hint = f"pip install '{LIBRARY}>={'.'.join(map(str, OLDEST))}'"
    try:
        if find_spec("megatron.core") is None:
            return f"{LIBRARY} is not installed: {hint}"
        found = installed(LIBRARY)
    except PackageNotFoundError:  # Megatron-LM's own folder, whatever its version
        return None
    except ModuleNotFoundError:  # no `megatron` either
        return f"{LIBRARY} is not installed: {hint}"
    numbers = [int(part) for part in found.split(".")[:2] if part.isdecimal()]
    return f"{LIBRARY} {shown(found)} is installed, which is too old: {hint}" if (*numbers,) < OLDEST else None


def _own_names(side: McoreSide) -> Iterator[str]:
    """Tensors that only megatron-core's own attention and Gated DeltaNet have."""
    for i in range(side.config.text.layers):
        kind = "in_proj" if side.config.text.is_linear(i) else "linear_qkv"
        yield f"{side.layout.text}decoder.layers.{i}.self_attention.{kind}.weight"


def memory_needed(side: McoreSide, layers: int | None) -> int:
    """Bytes of memory, at most, to compute the first `layers` layers (None: all) in float32."""
    return needed_for(tensors(side, layers), 4)


def language_config(side: McoreSide, layers: int | None) -> ModelConfig:
    """The integers of what is computed: the first `layers` layers (None: all), and no head but the output layer."""
    text = side.config.text
    count = text.layers if layers is None else min(layers, text.layers)
    kept = frozenset(range(count))
    text = replace(
        text,
        layers=count,
        dense_layers=text.dense_layers & kept,
        linear_layers=text.linear_layers & kept,
        mtp=0,
    )
    return replace(side.config, text=text, vision=None)


def args(side: McoreSide, layers: int | None) -> dict[str, Any]:
    """Megatron-LM's args of what is computed, of one rank."""
    config = language_config(side, layers)
    found = args_to_write(
        side.known.reference.config,
        config,
        Topology(),
        rows=side.known.rows,
        divisor=None,
        dtype="float32",
        grouped_experts=False,
    )
    return {name: value for name, value in found.items() if name != "params_dtype"}


def tensors(side: McoreSide, layers: int | None) -> dict[str, TensorSpec]:
    """The tensors of what is computed, by their names in the layout's table."""
    text = side.layout.text
    parts = (f"{text}embedding.", f"{text}output_layer.", f"{text}decoder.")
    count = language_config(side, layers).text.layers
    beyond = tuple(f"{text}decoder.layers.{i}." for i in range(count, side.config.text.layers))
    specs = side.reader.specs
    return {name: spec for name, spec in specs.items() if name.startswith(parts) and not name.startswith(beyond)}


def rounded_by_converting(side: McoreSide, layers: int | None) -> dict[str, str]:
    """Tensors that hold the Hugging Face value minus one, and the dtype to which converting rounds their sum with one.

    It is rounded here, too, but from the files' own numbers: the last bits of a sum are no fault of a layout.
    """
    there, less_one = tensors(side, layers), side.layout.less_one(side.config)
    return {name: there[name].dtype for name in less_one if name in there}


def boxes(spec: TensorSpec) -> Iterator[tuple[int | None, Box]]:
    """A tensor as it is handed over: whole, or of experts each by itself, with its number."""
    if EXPERTS not in spec.name:
        yield None, whole(spec)
        return
    for expert in range(spec.shape[0]):
        yield expert, Box(spec.name, (expert, *(0 for _ in spec.shape[1:])), (1, *spec.shape[1:]))
