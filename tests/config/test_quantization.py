"""quantization_config: the forms that are read, those that are refused by name, and what is no such thing."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fp8 import compressed, fine_grained

from vlconv.converters.config.quantization import split_quantization, with_quantization
from vlconv.converters.errors import CorruptError, UnsupportedError

BLOCK = [128, 128]


def config(stated: Any, **more: Any) -> dict[str, Any]:
    return {"model_type": "qwen3", "quantization_config": stated, **more}


def group(**weights: Any) -> dict[str, Any]:
    made = compressed()
    made["config_groups"]["group_0"]["weights"] |= weights
    return made


def test_none() -> None:
    for plain in ({"model_type": "qwen3"}, {"model_type": "qwen3", "quantization_config": None}):
        assert split_quantization(plain) == (plain, None)


@pytest.mark.parametrize(
    ("stated", "block", "scale"),
    [
        (fine_grained(), (128, 128), "x.weight_scale_inv"),
        ({"quant_method": "fp8", "weight_block_size": [64, 32]}, (64, 32), "x.weight_scale_inv"),
        (compressed(), (1, 0), "x.weight_scale"),
        (compressed((128, 128)), (128, 128), "x.weight_scale"),
    ],
)
def test_what_is_read(stated: dict[str, Any], block: tuple[int, int], scale: str) -> None:
    plain, found = split_quantization(config(stated, text_config={"hidden_size": 1}))
    assert plain == {"model_type": "qwen3", "text_config": {"hidden_size": 1}}
    assert found is not None
    assert (found.block, found.scale_of("x.weight"), found.place) == (block, scale, "")
    assert found.scale_of("mlp.experts.down_proj").startswith("mlp.experts.down_proj_scale")
    assert with_quantization(plain, found) == config(stated, text_config={"hidden_size": 1})


def test_within_a_section() -> None:
    stated = {"model_type": "qwen3_vl", "text_config": {"a": 1, "quantization_config": fine_grained()}}
    plain, found = split_quantization(stated)
    assert plain == {"model_type": "qwen3_vl", "text_config": {"a": 1}}
    assert found is not None and found.place == "text_config"
    assert with_quantization(plain, found) == stated
    both = stated | {"quantization_config": fine_grained()}
    assert split_quantization(both).plain == plain
    with pytest.raises(CorruptError, match="contradicts itself"):
        split_quantization(stated | {"quantization_config": compressed()})


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ({"quant_method": "awq"}, "AWQ"),
        ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
        ({"quant_method": "brand_new"}, "brand_new"),
        ({"quant_method": "fp8"}, "one scale for a whole tensor"),
        (fine_grained(fmt="e5m2"), "e5m2"),
        (fine_grained(activation_scheme="static"), "static"),
        (compressed() | {"format": "nvfp4-pack-quantized"}, "NVFP4"),
        (compressed() | {"format": "mxfp4-pack-quantized"}, "MXFP4"),
        (compressed() | {"format": "pack-quantized"}, "integers"),
        (compressed() | {"format": "another"}, "another"),
        (compressed() | {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        (group(num_bits=4), "4 bits"),
        (group(type="int"), "int"),
        (group(strategy="tensor"), "tensor"),
        (group(symmetric=False), "asymmetric"),
        ({}, "method None"),
    ],
)
def test_what_is_refused_by_name(stated: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"quantised weights of qwen3 \(quantization_config\): ") as fault:
        split_quantization(config(stated))
    assert name in fault.value.what and "unquantised model" in fault.value.hint


@pytest.mark.parametrize(
    "stated",
    [
        "fp8",
        [1],
        fine_grained() | {"weight_block_size": 128},
        fine_grained() | {"weight_block_size": [128]},
        fine_grained() | {"weight_block_size": [0, 128]},
        fine_grained() | {"weight_block_size": [128, -1]},
        fine_grained() | {"weight_block_size": [True, 128]},
        fine_grained() | {"weight_block_size": [1 << 40, 128]},
        fine_grained() | {"modules_to_not_convert": "lm_head"},
        fine_grained() | {"modules_to_not_convert": [1]},
        fine_grained() | {"modules_to_not_convert": [""]},
        fine_grained() | {"modules_to_not_convert": ["a"] * 300_000},
        compressed() | {"config_groups": {}},
        compressed() | {"config_groups": {"a": 1}},
        compressed() | {"config_groups": [1]},
        compressed() | {"ignore": {"a": 1}},
        group(strategy="block", block_structure="128x128"),
    ],
)
def test_what_is_malformed(stated: Any) -> None:
    with pytest.raises(CorruptError, match="quantization_config"):
        split_quantization(config(stated))


@pytest.mark.parametrize(
    ("entry", "kept", "not_kept"),
    [
        ("lm_head", ["lm_head.weight"], ["lm_heads.weight", "model.embed_tokens.weight"]),
        ("model.visual", ["model.visual.merger.norm.weight"], ["model.visuals.x.weight"]),
        ("mlp.gate", ["model.layers.3.mlp.gate.weight"], ["model.layers.3.mlp.gate_proj.weight"]),
        ("a.experts", ["a.experts.gate_up_proj", "a.experts.0.up_proj.weight"], ["a.expert.up_proj.weight"]),
    ],
)
def test_modules_that_are_not_converted(entry: str, kept: list[str], not_kept: list[str]) -> None:
    found = split_quantization(config(fine_grained(keep=[entry]))).quantization
    assert found is not None
    assert all(map(found.keeps, kept)) and not any(map(found.keeps, not_kept))


@pytest.mark.parametrize(
    ("entry", "kept", "not_kept"),
    [
        ("lm_head", ["lm_head.weight"], ["model.lm_head.weight"]),
        ("re:.*lm_head", ["lm_head.weight", "model.lm_head.weight"], ["model.norm.weight"]),
        ("re:.*mlp.gate$", ["model.layers.0.mlp.gate.weight"], ["model.layers.0.mlp.gate_proj.weight"]),
        (r"re:^model\.visual.*", ["model.visual.x.weight"], ["a.model.visual.x.weight"]),
        ("re:.*visual.*proj$", ["model.visual.0.proj.weight"], ["model.visual.0.proj.0.weight"]),
        ("re:x$", ["x.weight"], ["xx.weight"]),
    ],
)
def test_patterns_of_compressed_tensors(entry: str, kept: list[str], not_kept: list[str]) -> None:
    """As Python's own regular expressions say of names without hostile ones."""
    import re

    found = split_quantization(config(compressed(keep=[entry]))).quantization
    assert found is not None
    assert all(map(found.keeps, kept)) and not any(map(found.keeps, not_kept))
    if entry.startswith("re:"):
        for name in (*kept, *not_kept):
            module = name.removesuffix(".weight")
            assert bool(re.match(entry[3:], module)) == found.keeps(name)


def test_a_pattern_that_would_take_forever() -> None:
    found = split_quantization(config(compressed(keep=["re:(a+)+$", "re:" + ".*a" * 300 + "$"]))).quantization
    assert found is not None
    begin = time.monotonic()
    assert not found.keeps("a" * 200 + "b") and found.may_keep("b")
    assert time.monotonic() - begin < 1
