"""config.json of an output is the reference's, field by field, but for what the weights force; and transformers opens
it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hybrids import FIELD, Model, model, saved
from logits import logits
from references import differing, read_hf
from refusing import edit_config, refused

from vlconv.converters import Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError, MismatchError, UnsupportedError

SAMPLED = 2

LAYOUTS = {
    "qwen3_5": "mbridge-qwen3_5",
    "qwen3_5_moe": "mbridge",
    "qwen3_5_text": "megatron-lm",
    "qwen3_5_moe_text": "megatron-lm",
    "qwen2": "megatron-lm",
    "qwen3": "megatron-lm",
    "qwen3_moe": "megatron-lm",
    "qwen3_next": "megatron-lm",
}
PROMISING = [kind for kind in LAYOUTS if kind.startswith("qwen3_5")]
WITHOUT = [kind for kind in LAYOUTS if kind not in PROMISING]
EXPERTS = ["qwen3_5_moe", "qwen3_moe", "qwen3_next"]
FIVE = transformers.__version__.startswith("5")


def made(directory: Path, kind: str, **changes: Any) -> Model:
    """The Hub's spelling of everything; a head where config.json says so."""
    promising = kind in PROMISING
    return model(directory, kind, head=promising, promised=1 if promising else None, **changes)


def converted(root: Path, kind: str, reference: Path | None = None, **changes: Any) -> tuple[Model, dict[str, Any]]:
    """A model, and the config.json that comes of its checkpoint."""
    of = made(root / "reference", kind, **changes)
    source = saved(root / "saved", LAYOUTS[kind], of)
    mcore2hf(source, root / "hf", Mcore2HfOptions(reference=reference or of.directory))
    return of, json.loads((root / "hf/config.json").read_text())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_in_is_out(tmp_path: Path, kind: str, tied: bool) -> None:
    """The dtype stands at the top too, where transformers 5 looks first."""
    of, found = converted(tmp_path, kind, tied=tied, some_later_field={"a": [1, None]})
    assert found == of.config | {"dtype": "bfloat16"}
    kept = [name for name in found if name in of.config]
    assert kept == list(of.config)
    back = tmp_path / "mcore"
    hf2mcore(tmp_path / "hf", back)
    assert json.loads((back / "huggingface/config.json").read_text()) == found


@pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_next"])
def test_what_the_weights_force(tmp_path: Path, kind: str) -> None:
    of = made(tmp_path / "reference", kind)
    source = saved(tmp_path / "saved", LAYOUTS[kind], of)
    mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory, dtype="float32", mtp="drop"))
    found, wanted = json.loads((tmp_path / "hf/config.json").read_text()), copy.deepcopy(of.config)
    wanted["dtype"] = "float32"
    text = wanted.get("text_config", wanted)
    text |= {name: "float32" for name in ("dtype", "torch_dtype") if name in text}
    text |= {FIELD: 0} if FIELD in text else {}
    assert found == wanted


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("names", [("num_local_experts",), ("num_local_experts", "num_experts")])
def test_either_word_for_the_number_of_experts(tmp_path: Path, kind: str, names: tuple[str, ...]) -> None:
    """transformers 5 writes Qwen3-MoE's under another name."""
    of = made(tmp_path / "reference", kind)
    source = saved(tmp_path / "saved", LAYOUTS[kind], of)
    config = copy.deepcopy(of.config)
    text = config.get("text_config", config)
    del text["num_experts"]
    text |= dict.fromkeys(names, 4)
    (of.directory / "config.json").write_text(json.dumps(config))
    mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
    assert json.loads((tmp_path / "hf/config.json").read_text()) == of.config | {"dtype": "bfloat16"}
    assert differing(read_hf(tmp_path / "hf"), of.tensors) == []
    hf2mcore(of.directory, tmp_path / "mcore")
    text |= {"num_experts": 4, "num_local_experts": 8}
    (of.directory / "config.json").write_text(json.dumps(config))
    asked = Mcore2HfOptions(reference=of.directory)
    refused(mcore2hf, source, tmp_path / "out", asked, fault=CorruptError, says=("num_experts", "num_local_experts"))


@pytest.mark.versions
@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if FIVE or kind in WITHOUT])
def test_a_reference_that_transformers_saved(tmp_path: Path, kind: str) -> None:
    """The output opens there with the logits of the original, every weight in its place."""
    of = made(tmp_path / "original", kind)
    theirs = tmp_path / "theirs"
    transformers.AutoConfig.from_pretrained(of.directory).save_pretrained(theirs)
    source = saved(tmp_path / "saved", LAYOUTS[kind], of)
    mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=theirs))
    assert differing(read_hf(tmp_path / "hf"), of.tensors) == []
    assert torch.equal(logits(tmp_path / "hf"), logits(of.directory))
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["model_type"] == kind and config["architectures"] == of.config["architectures"]
    known, ours = (c.get("text_config", c) for c in (of.config, config))
    ropes = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
    for name in (*ropes, "num_experts", "layer_types", FIELD, "rms_norm_eps", "tie_word_embeddings"):
        if name in known:
            assert ours[name] == known[name], name


@pytest.mark.parametrize("kind", ["qwen4_exp", "qwen4_exp_text", "qwen2_moe"])
def test_neighbours_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    of = made(tmp_path / "reference", "qwen3_5_moe")
    source = saved(tmp_path / "saved", "mbridge", of)
    edit_config(of.directory, lambda config: config.update(model_type=kind))
    named = {"qwen4_exp": "Qwen3.8-Flash-Next", "qwen4_exp_text": "Qwen3.8-Flash-Next", "qwen2_moe": "Qwen2-MoE"}[kind]
    asked = Mcore2HfOptions(reference=of.directory)
    says = (named, f"model_type '{kind}'", "not supported")
    refused(mcore2hf, source, tmp_path / "hf", asked, fault=UnsupportedError, says=says)
    refused(hf2mcore, of.directory, tmp_path / "mcore", fault=UnsupportedError, says=says)


@pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_moe"])
@pytest.mark.parametrize("nested", [False, True])
def test_quantised_releases_are_refused(tmp_path: Path, kind: str, nested: bool) -> None:
    """By their config alone: what is written with it would be read as quantised."""
    stated = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    of = made(tmp_path / "reference", kind, **({"text": stated} if nested else stated))
    source = saved(tmp_path / "saved", LAYOUTS[kind], of)
    says = f"describes quantised weights of {kind}"
    asked = Mcore2HfOptions(reference=of.directory)
    refused(mcore2hf, source, tmp_path / "hf", asked, fault=UnsupportedError, says=says, hint="unquantised")
    refused(hf2mcore, of.directory, tmp_path / "mcore", fault=UnsupportedError, says=says, hint="unquantised")


def test_quantised_weights_under_a_plain_config_are_refused_too(tmp_path: Path) -> None:
    from tiny import write_weights

    of = made(tmp_path / "hf", "qwen3_5")
    name = "model.language_model.layers.0.linear_attn.in_proj_qkv.weight"
    write_weights(of.directory, of.tensors | {name: of.tensors[name].to(torch.float8_e4m3fn)})
    refused(hf2mcore, of.directory, tmp_path / "mcore", fault=MismatchError, says=f"{name} has dtype float8_e4m3fn")
