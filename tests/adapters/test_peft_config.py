"""adapter_config.json: what is read of it, and what is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from peft.utils.other import get_pattern_key

from vlconv.converters import CorruptError, NotACheckpoint, UnsupportedError
from vlconv.converters.adapters.peft.opened import open_peft
from vlconv.converters.adapters.peft.patterns import Patterns
from vlconv.converters.adapters.peft.stated import Stated, read_stated

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"]}


def stated(directory: Path, **fields: Any) -> Stated:
    (directory / "adapter_config.json").write_text(json.dumps(PLAIN | fields))
    return read_stated(directory)


def test_what_peft_writes_by_default_is_read(tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj"]).save_pretrained(tmp_path)
    found = read_stated(tmp_path)
    assert (found.rank, found.alpha, found.root, found.base) == (8, 16, False, "")


@pytest.mark.parametrize("rank", [1, 3, 8, 16, 32, 48, 256])
def test_the_scale_of_rslora_is_pefts_own(tmp_path: Path, rank: int) -> None:
    """As float64, bit for bit: alpha over the square root of the rank."""
    try:
        alpha = stated(tmp_path, use_rslora=True, r=rank, lora_alpha=20).alpha_of("m")
    except UnsupportedError:
        assert math.log2(rank) % 1  # of a power of two it can always be told
    else:
        assert alpha / rank == 20 / math.sqrt(rank)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"peft_type": "LOHA"}, "peft_type is LOHA"),
        ({"use_dora": True}, "use_dora is True: DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is .'lm_head'.: modules trained as a whole"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"bias": "lora_only"}, "bias is lora_only"),
        ({"lora_bias": True}, "lora_bias"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is pissa_niter_4"),
        ({"init_lora_weights": 1}, "init_lora_weights is 1"),
        ({"use_new_thing": True}, "use_new_thing is True, which is not known here"),
        ({"rank_pattern": {"layers.(0|1).q_proj": 4}}, "which is no module's name"),
        ({"rank_pattern": {"(a+)+$": 4}}, "which is no module's name"),
    ],
)
def test_what_is_no_plain_lora_is_refused(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        stated(tmp_path, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 0},
        {"r": True},
        {"r": "8"},
        {"r": 10**9},
        {"lora_alpha": None},
        {"lora_alpha": 0},
        {"lora_alpha": -1},
        {"lora_alpha": 1e300},
        {"rank_pattern": []},
        {"rank_pattern": ["q"]},
        {"rank_pattern": {"q": 2.5}},
        {"alpha_pattern": {"q": "8"}},
        {"target_parameters": "experts"},
        {"target_parameters": [1]},
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    if fields == {"rank_pattern": []}:
        assert stated(tmp_path, **fields).rank_of("q") == 8  # empty: it says nothing
        return
    with pytest.raises(CorruptError, match=f"adapter_config.json: {next(iter(fields))}"):
        stated(tmp_path, **fields)


def test_fields_that_say_nothing_may_have_any_name(tmp_path: Path) -> None:
    assert stated(tmp_path, use_new_thing=False, other_thing=None, third={}, init_lora_weights="gaussian").rank == 8


PATHS = [f"model.layers.{i}.{m}" for i in (1, 11) for m in ("self_attn.q_proj", "mlp.up_proj", "mlp.experts.up_proj")]


@pytest.mark.parametrize(
    "patterns",
    [
        ["q_proj"],
        ["proj"],
        ["1.self_attn.q_proj", "up_proj"],
        [r"layers\.11\.mlp\.up_proj", "mlp.up_proj", "up_proj"],
        ["up_proj", r"layers\.11\.mlp\.up_proj"],
        [PATHS[0]],
    ],
)
def test_patterns_mean_what_they_mean_to_peft(patterns: list[str]) -> None:
    values = {pattern: float(number) for number, pattern in enumerate(patterns)}
    for path in PATHS:
        key = get_pattern_key(values, path)
        assert Patterns(values, "here").of(path, -1) == values.get(key, -1), path


def test_a_pattern_of_no_module_is_refused() -> None:
    Patterns({"q_proj": 4}, "here").check_used(PATHS)
    with pytest.raises(UnsupportedError, match="o_proj, which fits no module"):
        Patterns({"q_proj": 4, "o_proj": 4}, "here").check_used(PATHS)


def test_what_is_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match=r"no adapter_config.json"):
        open_peft(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stated(tmp_path / name)
    with pytest.raises(NotACheckpoint, match=r"holds 2 adapters in folders of their own\nName one: .*one, .*two"):
        open_peft(tmp_path)
    (tmp_path / "one/adapter_model.bin").touch()
    with pytest.raises(NotACheckpoint, match=r"but adapter_model.bin\nSave the adapter as safetensors"):
        open_peft(tmp_path / "one")
