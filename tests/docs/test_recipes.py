"""The recipes of docs/inside-a-trainer.md, each in a stand-in for its trainer that has the same signatures.

Every parameter of a model is given as the trainer gives it, under names and with numbers by the formulas of
tests/trainers, and what comes out is held against the Hugging Face tensors that the formulas began with.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_config, write_tiny_hf
from trainers.decoder import Tensors
from trainers.parameters import one_by_one, parameters, same
from trainers.sizes import sizes

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "inside-a-trainer.md").read_text()
LAYOUTS = {"qwen3_vl": "mbridge", "qwen3_vl_moe": "mbridge", "qwen2_5_vl": "mbridge-qwen2_5"}
FOLDER = "Qwen3-VL-30B-A3B-Instruct"


def recipe(title: str) -> str:
    """The `python` block below a heading."""
    found = re.search(rf"^### {title}\n.*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The trainers' packages as new, in a folder where the recipes find their model."""
    monkeypatch.syspath_prepend(HERE / "stubs")
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("areal", "slime", "mbridge")]:
        del sys.modules[name]


def run(title: str) -> dict[str, Any]:
    """The names that a recipe defines."""
    scope: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(recipe(title), title, "exec"), scope)
    return scope


def model(kind: str) -> tuple[dict[str, Any], Tensors, Tensors]:
    """A tiny model in the folder: its config, its Hugging Face tensors, and its parameters."""
    config = tiny_config(kind)
    hf = write_tiny_hf(Path(FOLDER), config)
    return config, hf, parameters(LAYOUTS.get(kind, "megatron-lm"), config, hf)


@pytest.mark.parametrize("kind", ["qwen3_vl_moe", "qwen3_vl", "qwen2_5_vl", "qwen3_moe", "qwen3", "qwen2"])
def test_areal(kind: str) -> None:
    config, hf, params = model(kind)
    run("AReaL")
    from areal.engine.megatron_utils.megatron import convert_to_hf  # type: ignore[import-not-found]

    found = [
        pair
        for name, t in params.items()
        for pair in convert_to_hf(
            None, config["model_type"], f"module.module.{name}", t, None, False, SimpleNamespace()
        )
    ]
    same(found, one_by_one(hf))


def test_areal_keeps_what_it_has_for_others() -> None:
    model("qwen3")
    run("AReaL")
    from areal.engine.megatron_utils.megatron import convert_to_hf

    for other in ("qwen3_lora", "qwen2", "qwen3_vl_moe"):
        assert convert_to_hf(None, other, "module.module.x", 0) == [("AReaL's own", 0)]


def test_areal_asks_for_a_new_model_before_the_one_whose_name_it_has() -> None:
    model("qwen3_5_text")
    run("AReaL")
    from areal.engine.megatron_utils.megatron import convert_to_hf

    name = "module.module.decoder.final_layernorm.weight"
    assert convert_to_hf(None, "qwen3_5_text", name, torch.zeros(64))[0][0] != "AReaL's own"


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe", "qwen2"])
def test_slime(kind: str) -> None:
    from slime.backends.megatron_utils.megatron_to_hf import convert_to_hf  # type: ignore[import-not-found]

    config, hf, params = model(kind)
    args = SimpleNamespace(hf_checkpoint=FOLDER, vocab_size=config["vocab_size"])
    run("slime")["init"](args)
    ends = ("word_embeddings.weight", "output_layer.weight")
    padded = {name: torch.cat([t, t[:84]]) if name.endswith(ends) else t for name, t in params.items()}
    found = [pair for name, t in padded.items() for pair in convert_to_hf(args, kind, f"module.module.{name}", t)]
    same(found, hf)


@pytest.mark.parametrize(("stacked", "form"), [(True, dict), (False, one_by_one)])
def test_mbridge(stacked: bool, form: Callable[[Tensors], Tensors]) -> None:
    config, hf, params = model("qwen3_vl_moe")
    run("verl")
    from mbridge.core import _MODEL_REGISTRY  # type: ignore[import-not-found]

    bridge = _MODEL_REGISTRY["qwen3_vl_moe"](config, experts=sizes(config).experts)
    found = list(bridge.export_weights(params, keep_stacked_experts=stacked))
    same(found, form(hf))
    assert all(t.is_contiguous() for _, t in found)
    assert not bridge.export_weights_buff


def test_another_number_is_noticed() -> None:
    """The comparison is one: a parameter with two rows exchanged is found."""
    _, hf, params = model("qwen3")
    name = "decoder.layers.2.self_attention.linear_qkv.weight"
    params[name] = params[name].roll(1, 0)
    from slime.backends.megatron_utils.megatron_to_hf import convert_to_hf

    args = SimpleNamespace(hf_checkpoint=FOLDER, vocab_size=300)
    run("slime")["init"](args)
    with pytest.raises(AssertionError, match=r"layers\.2\.self_attn"):
        same([pair for n, t in params.items() for pair in convert_to_hf(args, "qwen3", n, t)], hf)
