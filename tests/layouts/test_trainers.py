"""Checkpoints of every trainer, converted with nothing said about them:
each Hugging Face tensor comes out bit for bit, the logits as in the original.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from logits import logits
from references import differing, read_hf
from tiny import tiny_config, write_tiny_hf
from trainers.places import MEGATRON, TRAINERS, namespace, saved_names, stacks, write
from trainers.saving import save, stacked
from trainers.sizes import sizes

from vlconv.converters import Mcore2HfOptions, mcore2hf
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS

CASES = [(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds]
FORWARD = [(name, trainer.kinds[place % len(trainer.kinds)]) for place, (name, trainer) in enumerate(TRAINERS.items())]
FORWARD += [("megatron-lm", kind) for kind in TRAINERS["megatron-lm"].kinds if ("megatron-lm", kind) not in FORWARD]
WRAPPERS = ("module.", "module.module.", "model.", "model.module.", "model.module.module.", "module.model.")


class Original:
    """A tiny Hugging Face model."""

    def __init__(self, directory, kind, **changes):
        self.directory, self.config = directory, tiny_config(kind, **changes)
        self.tensors = write_tiny_hf(directory, self.config, delta_dtype="bfloat16")  # a trainer's parameters' dtype

    def beside(self, reference):
        """A folder with what the model has beside its weights."""
        reference.mkdir(parents=True, exist_ok=True)
        for path in self.directory.iterdir():
            if path.suffix != ".safetensors":
                (reference / path.name).write_bytes(path.read_bytes())


class Originals(dict):
    """Model -> a tiny one, made when first asked for."""

    def __init__(self, directory):
        self.directory = directory

    def __missing__(self, kind):
        self[kind] = Original(self.directory / kind, kind)
        return self[kind]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return Originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="module")
def original_logits(originals):
    return cache(lambda kind: logits(originals[kind].directory))


def told(name, original):
    """What has to be said of a trainer's checkpoint: where the tower of one without comes from."""
    if name != "language-model":
        return Mcore2HfOptions()
    tower = "visual." if original.config["model_type"] == "qwen2_5_vl" else "model.visual."
    return Mcore2HfOptions(reference=original.directory, carry=(tower,))


def saved(root, name, original, **how):
    """A checkpoint, with its reference where the trainer leaves it; the folder to convert."""
    write(root, name, original.config, original.tensors, **how)
    original.beside(root / TRAINERS[name].beside)
    return root


def test_every_layout_has_a_trainer_here_for_each_of_its_models():
    assert {name: trainer.kinds for name, trainer in TRAINERS.items()} == {
        name: layout.models for name, layout in LAYOUTS.items()
    }


def test_every_model_and_every_layout_is_computed():
    assert {name for name, _ in FORWARD} == set(LAYOUTS) and {kind for _, kind in FORWARD} == set(MODELS)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, originals):
    """(layout, model) -> the report of a conversion and its output; made when first asked for."""

    @cache
    def convert(name, kind):
        work = tmp_path_factory.mktemp(f"{name}-{kind}")
        source = saved(work / "saved", name, originals[kind])
        return mcore2hf(source, work / "hf", told(name, originals[kind])), work / "hf"

    return convert


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_trainer_and_model(originals, converted, name, kind):
    report, made = converted(name, kind)
    assert differing(read_hf(made), originals[kind].tensors) == []
    assert report.data["layout"] == name
    assert report.data["layout_because"] == LAYOUTS[name].why
    assert f"{name} ({LAYOUTS[name].trainers}), because names begin with" in report.told["layout"]
    assert report.data["ignored"] == {"optimizer": 1, "_extra_state": 1, "rng_state": 1}
    stacked_lists = stacks(name, sizes(originals[kind].config))
    assert report.data["form"].startswith("layers stacked" if stacked_lists else "one key per layer")


@pytest.mark.parametrize(("name", "kind"), FORWARD)
def test_the_same_logits(converted, original_logits, name, kind):
    assert torch.equal(logits(converted(name, kind)[1]), original_logits(kind))


@pytest.mark.parametrize("name", MEGATRON)
def test_tied_and_padded(tmp_path, name):
    original = Original(tmp_path / "original", TRAINERS[name].kinds[0], tied=True)
    report = mcore2hf(saved(tmp_path / "saved", name, original, rows=384), tmp_path / "hf", told(name, original))
    assert differing(read_hf(tmp_path / "hf"), original.tensors) == []
    assert (report.data["padding_rows"], len(report.data["padded_tensors"]), report.data["tied"]) == (84, 1, True)


@pytest.mark.parametrize("name", [name for name, trainer in TRAINERS.items() if "qwen3_vl_moe" in trainer.kinds])
def test_dense_layers_among_experts(tmp_path, name):
    """Keys are per layer then: layers that differ cannot be stacked."""
    original = Original(tmp_path / "original", "qwen3_vl_moe", text={"mlp_only_layers": [1, 3]})
    save(tmp_path / "saved", TRAINERS[name].names(sizes(original.config), original.tensors))
    options = replace(told(name, original), reference=str(original.directory))
    mcore2hf(tmp_path / "saved", tmp_path / "hf", options)
    assert differing(read_hf(tmp_path / "hf"), original.tensors) == []


def test_experts_as_transformers_5_turns_them(tmp_path, originals):
    original = originals["qwen3_vl_moe"]
    turned = {n: t.transpose(1, 2) if ".experts." in n else t for n, t in original.tensors.items()}
    save(tmp_path / "saved", turned, plain=True)
    mcore2hf(tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(reference=str(original.directory)))
    assert differing(read_hf(tmp_path / "hf"), original.tensors) == []


@pytest.mark.parametrize(("wrapper", "name"), [*zip(WRAPPERS, MEGATRON[1:], strict=False), ("model.", "hf")])
def test_wrappers_before_the_names(tmp_path, originals, name, wrapper):
    original = originals[TRAINERS[name].kinds[-1]]
    report = mcore2hf(saved(tmp_path / "saved", name, original, wrapper=wrapper), tmp_path / "hf", told(name, original))
    assert differing(read_hf(tmp_path / "hf"), original.tensors) == []
    assert report.data["layout"] == name


@pytest.mark.parametrize(
    ("name", "where"), [("ms-swift", "args.json"), ("roll", "mca_config.json"), ("pai", "the checkpoint's args")]
)
def test_what_the_checkpoint_states_is_held_against_the_reference(tmp_path, originals, name, where):
    original = originals["qwen3_vl_moe"]
    common = namespace(original.config) if name == "pai" else None
    report = mcore2hf(saved(tmp_path / "saved", name, original, common=common), tmp_path / "hf")
    assert report.data["agrees_with"] == [where]
    assert "text_config.rope_theta" not in report.data["not_provable"]
    assert "vision_config.num_heads" in report.data["not_provable"]


@pytest.mark.parametrize("name", ["mbridge", "mbridge-qwen2_5", "pai", "roll"])
def test_the_norms_of_a_local_spec_are_read_too(tmp_path, originals, name):
    original = originals[TRAINERS[name].kinds[0]]
    tensors = TRAINERS[name].names(sizes(original.config), original.tensors)
    local = {
        n.replace("self_attention.linear_qkv.layer_norm_", "input_layernorm.").replace(
            "mlp.linear_fc1.layer_norm_", "pre_mlp_layernorm."
        ): t
        for n, t in tensors.items()
    }
    assert len(local.keys() - tensors.keys()) == {"mbridge": 24, "mbridge-qwen2_5": 16, "pai": 24, "roll": 8}[name]
    save(tmp_path / "saved", stacked(local, *TRAINERS[name].stacks))
    mcore2hf(tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(reference=str(original.directory)))
    assert differing(read_hf(tmp_path / "hf"), original.tensors) == []


def test_config_and_files_come_from_the_reference(originals, converted):
    given, (_, made) = originals["qwen2_5_vl"].directory, converted("mbridge-qwen2_5", "qwen2_5_vl")
    config = json.loads((given / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"  # stays beside its new name, for older readers
    assert json.loads((made / "config.json").read_text()) == {**config, "dtype": "bfloat16"}
    assert {p.name for p in made.iterdir()} == {p.name for p in given.iterdir()} | {"vlconv.json"}


def test_a_float32_tensor_among_others_stays_and_is_counted(tmp_path, originals):
    original = originals["qwen3_vl_moe"]
    tensors = {n: t.float() if n.endswith("mlp.gate.weight") else t for n, t in original.tensors.items()}
    save(tmp_path / "saved", saved_names("mbridge", original.config, tensors))
    report = mcore2hf(tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(reference=str(original.directory)))
    assert differing(read_hf(tmp_path / "hf"), tensors) == []
    assert report.data["dtypes"]["float32"] == 4
