"""Checkpoints of every trainer, converted with nothing said about them: each Hugging Face tensor comes out bit for bit, and the logits are those of the original."""

from __future__ import annotations

import json

import pytest
import torch
from logits import logits
from safetensors.torch import load_file
from tiny import tiny_config, write_tiny_hf
from trainers.places import TRAINERS, namespace, write

from vlconv.converters import Mcore2HfOptions, mcore2hf
from vlconv.converters.layouts import LAYOUTS

CASES = [(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds]
WRAPPERS = ("module.", "module.module.", "model.", "model.module.", "model.module.module.")


class Original:
    """A tiny Hugging Face model and its logits."""

    def __init__(self, directory, kind, **changes):
        self.directory, self.config = directory, tiny_config(kind, **changes)
        self.tensors = write_tiny_hf(directory, self.config)
        self._logits = None

    @property
    def logits(self):
        self._logits = logits(self.directory) if self._logits is None else self._logits
        return self._logits


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return {kind: Original(tmp_path_factory.mktemp(kind), kind) for kind in ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl")}


def written(root, name, original, **how):
    """A checkpoint with its reference where the trainer leaves it; the folder to convert."""
    write(root, name, original.config, original.tensors, **how)
    reference = root / TRAINERS[name].beside
    write_tiny_hf(reference, original.config, seed=1)
    (reference / "model.safetensors").unlink()
    return root


def assert_same(directory, tensors):
    found = load_file(directory / "model.safetensors")
    assert found.keys() == tensors.keys()
    unequal = [name for name, t in tensors.items() if found[name].dtype != t.dtype or not torch.equal(found[name].view(torch.int16), t.view(torch.int16))]
    assert not unequal


def test_every_layout_has_a_trainer_for_each_of_its_models():
    assert {name: trainer.kinds for name, trainer in TRAINERS.items()} == {name: layout.models for name, layout in LAYOUTS.items()}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_trainer(tmp_path, originals, name, kind):
    original = originals[kind]
    report = mcore2hf(written(tmp_path / "saved", name, original), tmp_path / "hf")
    assert_same(tmp_path / "hf", original.tensors)
    assert torch.equal(logits(tmp_path / "hf"), original.logits)
    assert report.data["layout"] == name
    assert report.data["layout_because"] == LAYOUTS[name].why
    assert f"{name} ({LAYOUTS[name].trainers}), because names begin with" in dict(report.facts)["layout"]
    assert report.data["ignored"] == {"optimizer": 1, "_extra_state": 1, "rng_state": 1}
    assert report.data["form"] == ("layers stacked" if stacks(name, original) else "one key per layer" + ", singleton shards" * one_by_one(name, original))


def stacks(name, original):
    return TRAINERS[name].stacks_moe if original.config["model_type"] == "qwen3_vl_moe" else TRAINERS[name].stacks


def one_by_one(name, original):
    return name == "mindspeed-mm" and original.config["model_type"] == "qwen3_vl_moe"


@pytest.mark.parametrize("name", TRAINERS)
def test_tied_and_padded(tmp_path, name):
    original = Original(tmp_path / "original", TRAINERS[name].kinds[0], tied=True)
    report = mcore2hf(written(tmp_path / "saved", name, original, rows=384), tmp_path / "hf")
    assert_same(tmp_path / "hf", original.tensors)
    assert report.data["padding_rows"] == 84 and len(report.data["padded_tensors"]) == 1 and report.data["tied"]


@pytest.mark.parametrize("name", TRAINERS)
def test_dense_layers_among_experts(tmp_path, name):
    """Keys are per layer then, as megatron-core cannot stack what differs."""
    if "qwen3_vl_moe" not in TRAINERS[name].kinds:
        original = Original(tmp_path / "original", "qwen2_5_vl")
    else:
        original = Original(tmp_path / "original", "qwen3_vl_moe", text={"mlp_only_layers": [1, 3]})
    write_per_layer(tmp_path / "saved", name, original)
    mcore2hf(tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(reference=str(original.directory)))
    assert_same(tmp_path / "hf", original.tensors)


def write_per_layer(root, name, original):
    from trainers.saving import save
    from trainers.sizes import sizes

    save(root / "release", TRAINERS[name].names(sizes(original.config), original.tensors))


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", TRAINERS)
def test_wrappers_before_the_names(tmp_path, originals, name, wrapper):
    original = originals[TRAINERS[name].kinds[0]]
    report = mcore2hf(written(tmp_path / "saved", name, original, wrapper=wrapper), tmp_path / "hf")
    assert_same(tmp_path / "hf", original.tensors)
    assert report.data["layout"] == name


def test_what_the_checkpoint_states_is_held_against_the_reference(tmp_path, originals):
    for name, where in (("ms-swift", "args.json"), ("roll", "mca_config.json"), ("pai", "the checkpoint's args")):
        original = originals["qwen3_vl_moe"]
        common = namespace(original.config) if name == "pai" else None
        report = mcore2hf(written(tmp_path / name, name, original, common=common), tmp_path / f"{name}-hf")
        assert report.data["agrees_with"] == [where]
        assert "text_config.rope_theta" not in report.data["not_provable"] and "vision_config.num_heads" in report.data["not_provable"]


def test_the_norms_of_a_local_spec_are_read_as_those_of_transformer_engine(tmp_path, originals):
    from trainers import decoder, vision
    from trainers.saving import save, stacked
    from trainers.sizes import sizes

    original = originals["qwen3_vl"]
    tensors = local_spec(TRAINERS["mbridge"].names(sizes(original.config), original.tensors))
    assert any(name.endswith(f".0.{decoder.LOCAL[0]}") for name in tensors) and any(f".0.{vision.LOCAL[1]}bias" in name for name in tensors)
    save(tmp_path / "saved", stacked(tensors, *TRAINERS["mbridge"].stacks))
    mcore2hf(tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(reference=str(original.directory)))
    assert_same(tmp_path / "hf", original.tensors)


def local_spec(tensors):
    spelled = {"self_attention.linear_qkv.layer_norm_": "input_layernorm.", "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm."}
    found = {}
    for name, t in tensors.items():
        for inside, beside in spelled.items():
            name = name.replace(inside, beside)
        found[name] = t
    return found


def test_a_config_of_the_target_is_that_of_the_reference(tmp_path, originals):
    original = originals["qwen2_5_vl"]
    mcore2hf(written(tmp_path / "saved", "mbridge-qwen2_5", original), tmp_path / "hf")
    made, given = (json.loads((d / "config.json").read_text()) for d in (tmp_path / "hf", original.directory))
    assert made == {**{k: v for k, v in given.items() if k != "torch_dtype"}, "dtype": "bfloat16"}
