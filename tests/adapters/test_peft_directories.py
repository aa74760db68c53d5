"""PEFT directories that peft saved: read, held against what peft makes of them, written again, and loaded by peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_of_peft import (
    EXPERTS,
    adapted,
    adapter_tensors,
    layers_of,
    linear,
    load_adapter,
    save_adapter,
    state_of,
)
from logits import forward, load
from references import differing
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters.adapters.adapter import Adapter
from vlconv.converters.adapters.peft.opened import open_peft
from vlconv.converters.adapters.peft.read import adapter_of
from vlconv.converters.adapters.peft.written import Written, peft_files, to_write
from vlconv.converters.models import ModelConfig, model_for
from vlconv.converters.output.writing.writer import write_files
from vlconv.converters.report import Silent
from vlconv.converters.tensors.spec import whole
from vlconv.converters.workers import workers_of

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "patterns": (
        "qwen3_vl",
        linear("q_proj", "v_proj", "qkv", "linear_fc1", "down_proj")
        | {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"qkv": 5}},
    ),
    "later prefixes, rslora": ("qwen2_5_vl", linear("q_proj", "k_proj", "attn.proj") | {"use_rslora": True}),
    "experts": ("qwen3_vl_moe", linear("q_proj") | EXPERTS | {"rank_pattern": {"experts.down_proj": 3}}),
    "half of the experts, router": (
        "qwen3_moe",
        linear("o_proj") | {"target_parameters": ["experts.gate_up_proj", "mlp.gate.weight"]},
    ),
    "linear attention": ("qwen3_5", linear("in_proj_qkv", "in_proj_z", "out_proj", "gate_proj")),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, ModelConfig]:
    """A tiny model at hf, an adapter of it at made; what the model is."""
    model, fields = CASES[request.param]
    config = tiny_config(model)
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    save_adapter(tmp_path / "hf", tmp_path / "made", **fields)
    return tmp_path, model_for(config).config(config)


def read(directory: Path, config: ModelConfig) -> Adapter:
    return adapter_of(open_peft(directory), config)


def write(adapter: Adapter, config: ModelConfig, directory: Path, *, packed: bool = True) -> Written:
    written = to_write(adapter, config, packed=packed)
    directory.mkdir()
    write_files(written.reader, peft_files(written.reader, written.config), directory, workers_of(1, None), Silent())
    return written


def test_what_is_read_is_written_again(case: tuple[Path, ModelConfig]) -> None:
    """And peft loads it: nothing is missing or left over, ranks and scales are the same."""
    path, config = case
    write(read(path / "made", config), config, path / "again")
    made = adapter_tensors(path / "made")
    assert not differing(adapter_tensors(path / "again"), made)
    loaded, expected = load_adapter(path / "hf", path / "again"), load_adapter(path / "hf", path / "made")
    assert layers_of(loaded) == layers_of(expected) and len(layers_of(loaded)) == len(made) / 2
    assert not differing(state_of(loaded), made)


def test_pairs_change_what_peft_changes(case: tuple[Path, ModelConfig]) -> None:
    """Each pair's W + s (B A), in the Hub's tensors, is what merge_and_unload makes of the model."""
    path, config = case
    adapter = read(path / "made", config)
    write_weights(path / "hf", merged(path / "hf", adapter))  # in the place of the base's
    found = load(path / "hf").state_dict()
    base = path / "base"
    write_tiny_hf(base, tiny_config(config.model_type), dtype="float32")
    before = load(base).state_dict()
    expected = load_adapter(base, path / "made").merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    assert sum(not torch.equal(tensor, before[name]) for name, tensor in expected.items()) >= len(adapter.pairs) / 8
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


def merged(hf: Path, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The base's weights with every pair applied, by torch alone."""
    from references import read_hf

    weights = read_hf(hf)
    for pair in adapter.pairs:
        change = pair.scale * (tensor_of(adapter, pair.b) @ tensor_of(adapter, pair.a))
        name, offsets, lengths = pair.weight
        place = tuple(slice(first, first + n) for first, n in zip(offsets, lengths, strict=True))
        weights[name][place] += (change.T if pair.transpose else change).reshape(lengths)
    return weights


def tensor_of(adapter: Adapter, name: str) -> torch.Tensor:
    import numpy as np

    spec = adapter.reader.specs[name]
    out = np.empty(spec.shape, np.uint32)
    adapter.reader.read_into(whole(spec), out)
    return torch.from_numpy(out).view(torch.float32)


def test_experts_one_by_one(tmp_path: Path) -> None:
    """Each expert's matrices are what its slice of peft's packed ones is, in both directions."""
    config = tiny_config("qwen3_moe")
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    model = model_for(config).config(config)
    packed = save_adapter(tmp_path / "hf", tmp_path / "made", **linear("q_proj") | EXPERTS)
    write(read(tmp_path / "made", model), model, tmp_path / "single", packed=False)
    single = adapter_tensors(tmp_path / "single")
    experts, ffn, rank = model.text.experts, model.text.moe_ffn, 4
    stem = "base_model.model.model.layers.1.mlp.experts"
    up = packed[f"{stem}.base_layer.lora_B.weight"].reshape(2 * ffn, rank, experts)
    for e in range(experts):
        assert torch.equal(single[f"{stem}.{e}.gate_proj.lora_B.weight"], up[:ffn, :, e])
        assert torch.equal(single[f"{stem}.{e}.up_proj.lora_B.weight"], up[ffn:, :, e])
        rows = packed[f"{stem}.lora_A.weight"][e * rank : (e + 1) * rank]
        assert torch.equal(single[f"{stem}.{e}.down_proj.lora_A.weight"], rows)
    write(read(tmp_path / "single", model), model, tmp_path / "again")
    assert not differing(adapter_tensors(tmp_path / "again"), packed)


def test_parts_with_different_a_lie_in_blocks(tmp_path: Path) -> None:
    """gate and up of experts with an A each: peft's one pair of twice the rank changes the model in the same way."""
    config = tiny_config("qwen3_moe")
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    model = model_for(config).config(config)
    save_adapter(tmp_path / "hf", tmp_path / "made", **linear("q_proj") | EXPERTS)
    write(read(tmp_path / "made", model), model, tmp_path / "single", packed=False)
    from safetensors.torch import save_file

    tensors = adapter_tensors(tmp_path / "single")
    for name in [n for n in tensors if "up_proj.lora_A" in n]:
        tensors[name] = tensors[name] + 1
    save_file(tensors, tmp_path / "single/adapter_model.safetensors")
    adapter = read(tmp_path / "single", model)
    written = write(adapter, model, tmp_path / "blocks")
    assert written.config["rank_pattern"] == {f"model.layers.{i}.mlp.experts.gate_up_proj": 8 for i in range(4)}
    found = load_adapter(tmp_path / "hf", tmp_path / "blocks")
    write_weights(tmp_path / "hf", merged(tmp_path / "hf", adapter))
    expected = forward(load(tmp_path / "hf"), config)
    torch.testing.assert_close(forward(found, config), expected, atol=1e-4, rtol=1e-3)


def test_old_prefixes_are_read(tmp_path: Path) -> None:
    """transformers before 4.52 saved Qwen2.5-VL's adapters under the Hub's own prefixes."""
    from safetensors.torch import save_file

    config = tiny_config("qwen2_5_vl")
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    model = model_for(config).config(config)
    made = save_adapter(tmp_path / "hf", tmp_path / "made", **linear("q_proj", "qkv"))
    old = {
        n.replace(".model.language_model.", ".model.").replace(".model.visual.", ".visual."): t for n, t in made.items()
    }
    save_file(old, tmp_path / "made/adapter_model.safetensors")
    write(read(tmp_path / "made", model), model, tmp_path / "again")
    assert old.keys().isdisjoint(made) and not differing(adapter_tensors(tmp_path / "again"), made)


def test_whole_names_hit_no_other_module(tmp_path: Path) -> None:
    """`attn.proj` by its end would be `patch_embed.proj`, too."""
    config = tiny_config("qwen3_vl")
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    model = model_for(config).config(config)
    save_adapter(tmp_path / "hf", tmp_path / "made", **linear("attn.proj"))
    write(read(tmp_path / "made", model), model, tmp_path / "again")
    assert len(layers_of(load_adapter(tmp_path / "hf", tmp_path / "again"))) == model.tower.depth
    assert len(layers_of(adapted(tmp_path / "hf", **linear("proj")))) > model.tower.depth


def test_a_shared_experts_matrices_are_not_taken_for_experts(tmp_path: Path) -> None:
    """peft goes by the end of a name, where a model's experts were modules before transformers 5."""
    config = tiny_config("qwen3_next")
    write_tiny_hf(tmp_path / "hf", config, dtype="float32")
    model = model_for(config).config(config)
    shared = {"target_parameters": ["shared_expert.gate_proj.weight", "shared_expert.down_proj.weight"]}
    made = save_adapter(tmp_path / "hf", tmp_path / "made", **linear("o_proj") | shared)
    write(read(tmp_path / "made", model), model, tmp_path / "again")
    assert not differing(state_of(load_adapter(tmp_path / "hf", tmp_path / "again")), made)
    assert any("shared_expert.down_proj.lora_A" in name for name in made)
