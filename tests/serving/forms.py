"""Every form that mcore2hf writes, made of a source by way of Megatron."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from run_config import run_config
from safetensors import safe_open

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf

_AS_ON_THE_HUB = Mcore2HfOptions()


@dataclass(frozen=True)
class Form:
    """What to write.

    Attributes:
        source: a key of SOURCES.
        shows: the file or tensor by which one sees that it is this form.
        options: of mcore2hf.
        made_config: no reference: config.json is made from run_config.yaml and the shapes.
    """

    source: str
    shows: str
    options: Mcore2HfOptions = _AS_ON_THE_HUB
    made_config: bool = False


_ONE_EXPERT = "model.language_model.layers.0.mlp.experts.3.up_proj.weight"
_ALL_EXPERTS = "model.language_model.layers.0.mlp.experts.gate_up_proj"
_SHARDS = Mcore2HfOptions(max_shard_size=200_000)
_PER_EXPERT = Mcore2HfOptions(experts="per-expert")

FORMS = {
    "dense": Form("dense", "lm_head.weight"),
    "dense, tied": Form("dense, tied", "model.safetensors"),
    "dense, sharded": Form("dense", "model.safetensors.index.json", _SHARDS),
    "dense, made config": Form("dense", "lm_head.weight", made_config=True),
    "MoE, stacked": Form("experts", _ALL_EXPERTS),
    "MoE, stacked, sharded": Form("experts", "model.safetensors.index.json", _SHARDS),
    "MoE, stacked, some dense layers": Form("some dense layers", "model.language_model.layers.1.mlp.up_proj.weight"),
    "MoE, stacked, made config": Form("experts", _ALL_EXPERTS, made_config=True),
    "MoE, per expert": Form("experts", _ONE_EXPERT, _PER_EXPERT),
    "MoE, per expert, some dense layers": Form("some dense layers", _ONE_EXPERT, _PER_EXPERT),
    "Qwen3": Form("text, dense", "lm_head.weight"),
    "Qwen3, made config": Form("text, dense", "lm_head.weight", made_config=True),
    "Qwen3-MoE": Form("text, experts", "model.layers.0.mlp.experts.3.up_proj.weight"),
    "Qwen3-MoE, made config": Form("text, experts", "model.layers.0.mlp.experts.3.up_proj.weight", made_config=True),
    "Qwen2.5": Form("text, qwen2.5", "model.layers.0.self_attn.q_proj.bias"),
    "Qwen2.5, made config": Form("text, qwen2.5", "model.layers.0.self_attn.q_proj.bias", made_config=True),
    "Qwen2.5-VL, old names": Form("qwen2.5", "visual.patch_embed.proj.weight"),
    "Qwen2.5-VL, old names, tied": Form("qwen2.5, tied", "visual.patch_embed.proj.weight"),
    "Qwen2.5-VL, new names": Form("qwen2.5", "model.visual.patch_embed.proj.weight", Mcore2HfOptions(hf_names="new")),
    "Qwen2.5-VL, made config": Form("qwen2.5", "visual.patch_embed.proj.weight", made_config=True),
}


def write_form(directory: Path, form: Form, source: Path) -> None:
    """Convert a source to Megatron, with a padded vocabulary, and back as `form`."""
    mcore = directory.parent / f"{directory.name}-mcore"
    hf2mcore(source, mcore, Hf2McoreOptions(make_vocab_size_divisible_by=128))
    if form.made_config:
        shutil.rmtree(mcore / "huggingface")
        (mcore / "release" / "run_config.yaml").write_text(run_config(json.loads((source / "config.json").read_text())))
    mcore2hf(mcore, directory, form.options)
    if form.made_config:  # tokenizer and processor are the user's to add: the summary says so
        for file in source.iterdir():
            if file.name != "config.json" and file.suffix != ".safetensors":
                shutil.copy(file, directory)
    shutil.rmtree(mcore)
    assert form.shows in written(directory), sorted(written(directory))


def written(directory: Path) -> set[str]:
    """The names of all files, and of all tensors in them."""
    names = {file.name for file in directory.iterdir()}
    for file in directory.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names |= set(opened.keys())
    return names
