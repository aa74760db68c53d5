"""What hf2mcore writes in every trainer's names:
the keys, shapes and numbers that the trainer's own save has, read back by torch's distributed checkpoint.
"""

from __future__ import annotations

import dcp
import pytest
import torch
from references import differing
from tiny import tiny_config, write_tiny_hf
from trainers.places import TRAINERS, saved_names

from vlconv.converters import Hf2McoreOptions, hf2mcore
from vlconv.converters.errors import MismatchError, UnsupportedError, VlconvError
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS

CASES = [(name, kind) for name, layout in LAYOUTS.items() if "torch_dist" in layout.writes for kind in layout.models]


def loaded(directory):
    """Every tensor of a distributed checkpoint, and the names of its byte entries."""
    state = dcp.load(directory)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return tensors, state.keys() - tensors.keys()


PLAIN = (".router.", ".conv1d.", ".linear_attn.", ".self_attention.input_layernorm.")
"""What is no module of Transformer Engine's: Hugging Face's Gated DeltaNet in slime, with its norm, is none either."""


def module_with_state(name):
    """The module of a language model's tensor that has an extra state; None where there is none."""
    short = name.removeprefix("language_model.")
    if not short.startswith(("decoder.", "mtp.")) or any(part in name for part in PLAIN):
        return None
    if name.endswith((".A_log", ".dt_bias", ".gate_weight")):  # parameters of a module that is not Transformer Engine's
        return None
    return name.split(".in_proj.weight.")[0] + ".in_proj" if ".in_proj.weight." in name else name.rpartition(".")[0]


def core_attention(tensors):
    """megatron-core 0.16 asks for that of a multi-token-prediction head, and of no other layer."""
    heads = [n for n in tensors if ".self_attention.linear_qkv.weight" in n and "mtp.layers." in n]
    return {n.replace("linear_qkv.weight", "core_attention") for n in heads}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_layout_and_model(tmp_path, name, kind):
    config = tiny_config(kind)
    hf = write_tiny_hf(tmp_path / "hf", config, delta_dtype="bfloat16")
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(as_layout=name))
    tensors, others = loaded(tmp_path / "mcore" / "release")
    assert differing(tensors, saved_names(name, config, hf)) == []
    assert report.data["target_layout"] == name
    marked = {entry.split("._extra_state/")[0] for entry in others if not entry.startswith("vision")}
    assert marked == {module for module in map(module_with_state, tensors) if module} | core_attention(tensors)
    if "projection" not in "".join(tensors) and "patch_norm" not in "".join(tensors):  # a Hugging Face tower has none
        assert not [entry for entry in others if entry.startswith("vis")]


def test_padding_reads_as_zeros(tmp_path):
    hf = write_tiny_hf(tmp_path / "hf", tiny_config("qwen2_5_vl"))
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(as_layout="roll", make_vocab_size_divisible_by=64))
    tensors, _ = loaded(tmp_path / "mcore" / "release")
    for name, theirs in (
        ("embedding.word_embeddings.weight", "model.embed_tokens.weight"),
        ("output_layer.weight", "lm_head.weight"),
    ):
        assert (
            tensors[name].shape == (320, 64)
            and torch.equal(tensors[name][:300], hf[theirs])
            and not tensors[name][300:].any()
        )


def test_the_default_is_the_common_one(tmp_path):
    for kind, model in MODELS.items():
        name = model.default_layout
        write_tiny_hf(tmp_path / kind, tiny_config(kind))
        report = hf2mcore(tmp_path / kind, tmp_path / "mcore", Hf2McoreOptions(dry_run=True))
        assert (
            report.data["target_layout"] == name
            and "torch_dist" in LAYOUTS[name].writes
            and kind in LAYOUTS[name].models
        )
    assert set(MODELS) == {kind for trainer in TRAINERS.values() for kind in trainer.kinds}


@pytest.mark.parametrize(
    ("name", "fault", "says"),
    [
        ("mbridge-qwen2_5", MismatchError, "layout mbridge-qwen2_5 is one of qwen2_5_vl; the source is a qwen3_vl"),
        ("mindspeed-mm", UnsupportedError, "layout mindspeed-mm (MindSpeed-MM) is written as torch, not as torch_dist"),
        ("nobody's", MismatchError, 'no layout is called "nobody\'s"'),
    ],
)
def test_refused(tmp_path, name, fault, says):
    write_tiny_hf(tmp_path / "hf")
    with pytest.raises(VlconvError) as caught:
        hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(as_layout=name))
    assert type(caught.value) is fault and says in caught.value.what and "mbridge" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]
