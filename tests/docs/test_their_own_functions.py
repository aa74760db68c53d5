"""What convert_tensor gives is what the trainers' own functions give.

Left to whoever has checkouts of AReaL and slime in one folder (`AReaL/`, `slime/`); of each only the modules that
convert are loaded, so nothing of theirs need be installed.

    TRAINERS=~/src .venv/bin/pytest -m checkouts tests/docs/test_their_own_functions.py
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tiny import tiny_config, tiny_shapes, tiny_weights
from trainers.decoder import Tensors
from trainers.parameters import parameters, same

from vlconv.converters.live import live_model, to_hf

pytestmark = pytest.mark.checkouts


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("areal", "slime")]:
        del sys.modules[name]


def load(trainer: str, module: str) -> Any:
    """One module of a checkout, the packages around it being empty."""
    checkout = Path(os.environ["TRAINERS"]) / trainer
    assert checkout.is_dir(), f"TRAINERS names no folder with {trainer}"
    parents = module.split(".")[:-1]
    for n in range(1, len(parents) + 1):
        package = sys.modules[".".join(parents[:n])] = ModuleType(".".join(parents[:n]))
        package.__path__ = [str(checkout.joinpath(*parents[:n]))]
    return importlib.import_module(module)


def absent(name: str, *functions: str) -> None:
    """A module that is asked for and not needed."""
    sys.modules[name] = ModuleType(name)
    for function in functions:
        setattr(sys.modules[name], function, type(function, (), {}))


def arguments(config: dict[str, Any]) -> SimpleNamespace:
    """What both have from Megatron: sizes of the language model."""
    text = config.get("text_config", config)
    return SimpleNamespace(
        kv_channels=text.get("head_dim", text["hidden_size"] // text["num_attention_heads"]),
        hidden_size=text["hidden_size"],
        num_attention_heads=text["num_attention_heads"],
        num_query_groups=text["num_key_value_heads"],
        vocab_size=text["vocab_size"],
        q_lora_rank=None,
    )


def compare(kind: str, layout: str, theirs: Any) -> None:
    """Every parameter of a model, converted by `theirs(config, name, tensor)` and here."""
    config = tiny_config(kind)
    given = parameters(layout, config, tiny_weights(tiny_shapes(config)))
    wanted: Tensors = {}
    for name, tensor in given.items():
        wanted |= dict(theirs(config, f"module.module.{name}", tensor))
    model = live_model(config, layout)
    same([pair for name, tensor in given.items() for pair in to_hf(model, f"module.module.{name}", tensor)], wanted)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("qwen3_vl", "mbridge"),
        ("qwen3_vl_moe", "mbridge"),
        ("qwen2_5_vl", "mbridge-qwen2_5"),
        ("qwen3", "megatron-lm"),
        ("qwen3_moe", "megatron-lm"),
        ("qwen2", "megatron-lm"),
    ],
)
def test_areal(kind: str, layout: str) -> None:
    home = "areal.engine.megatron_utils"
    own = ("FP8BlockwiseTensorHelper", "convert_fp8_helper_to_pytorch_fp8", "get_block_size_from_config")
    absent(f"{home}.fp8", *own, "quantize_params")
    absent(f"{home}.megatron_lora", "convert_qwen3_lora_to_hf", "convert_qwen3_moe_lora_to_hf")
    module = load("AReaL", f"{home}.megatron")

    def theirs(config: dict[str, Any], name: str, tensor: Any) -> Any:
        hf_config = SimpleNamespace(vision_config=SimpleNamespace(**config.get("vision_config", {})))
        return module.convert_to_hf(arguments(config), kind, name, tensor, hf_config=hf_config)

    compare(kind, layout, theirs)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("qwen3", "megatron-lm"),
        ("qwen3_moe", "megatron-lm"),
        ("qwen2", "megatron-lm"),
        ("qwen3_next", "slime-text"),
        ("qwen3_5", "slime"),
        ("qwen3_5_moe", "slime"),
        ("qwen3_vl", "megatron-bridge-0.3"),
    ],
)
def test_slime(kind: str, layout: str) -> None:
    module = load("slime", "slime.backends.megatron_utils.megatron_to_hf")

    def theirs(config: dict[str, Any], name: str, tensor: Any) -> Any:
        return module.convert_to_hf(arguments(config), kind, name, tensor)

    compare(kind, layout, theirs)
