"""run_config.yaml: which model Megatron-Bridge builds for a checkpoint. Its loaders take no checkpoint without one.

What is not written has the provider's own default, as when Megatron-Bridge makes a provider from a config.json.
A `_target_` names a class or, with `_call_: false`, a thing that is not called; keys unknown to a class are dropped.
"""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import UnsupportedError, shown, sized
from ..formats.directory.yaml_file import LARGEST
from ..models import model_of
from ..models.shared.config import ModelConfig, TextConfig
from ..models.shared.fields import Json
from ..models.shared.model import Model
from ..models.shared.traits import Traits
from .facts import runtime_facts
from .hf_config import config_to_write, text_section
from .written_args import hybrid_args

RUN_CONFIG = "run_config.yaml"

CHECKPOINT = {"ckpt_format": "torch_dist", "fully_parallel_save": True, "save_optim": False, "save_rng": False}
"""What its training asks before it resumes: here are weights, and no state to look for."""

COPIED = {
    "max_position_embeddings": "seq_length",
    "initializer_range": "init_method_std",
    "attention_dropout": "attention_dropout",
    "vision_token_id": "vision_token_id",
}
"""Fields of config.json, if they are there, and the provider's names for them."""

NOT_COPIED = ("architectures", "model_type", "name_or_path", "transformers_version")
"""Of a section of config.json: what its class knows itself, and where a file once lay."""


def run_config_yaml(hf_config: Json, config: ModelConfig, dtype: str, peft: Json | None = None) -> bytes:
    """The file's bytes, the same for the same model: one that Megatron-Bridge has classes for (model.bridge).

    Args:
        hf_config: the model's config.json, of transformers 4 or 5.
        config: its integers.
        dtype: of the weights, as "bfloat16".
        peft: the section of an adapter, where the checkpoint is one.

    Raises:
        CorruptError: config.json lacks a field without which the model cannot be computed.
        UnsupportedError: an activation or a rope that no Qwen release has, or more than is read back.
    """
    model = model_of(config)
    assert model.bridge is not None
    plain = config_to_write(hf_config, model, tied=config.text.tied, dtype=dtype)
    text, place = text_section(plain)
    if text.get("hidden_act", "silu") != "silu":
        raise UnsupportedError(
            f"config.json: {place}hidden_act is {shown(text['hidden_act'])}; run_config.yaml is written for silu only",
            "Correct it, or name another layout with --as-layout.",
        )
    section = {
        "_target_": model.bridge.provider,
        **_copied(model, text, plain),
        **_text(model, config.text),
        **hybrid_args(config.text, model.traits),
        **_runtime(hf_config, config),
        **_dtype(dtype),
        # Of the loading model: the public loaders and training put their own in their place.
        "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1,
    }
    if model.bridge.layer_spec:
        section |= {"transformer_layer_spec": _named(model.bridge.layer_spec), "hetereogenous_dist_checkpoint": True}
    if model.bridge.vision_config:
        section["vision_config"] = _transformers(model.bridge.vision_config, plain["vision_config"], dtype)
    if model.bridge.text_config:
        section["hf_text_config"] = _transformers(model.bridge.text_config, text, dtype)
    document = {"checkpoint": CHECKPOINT, "model": section, **({"peft": dict(peft)} if peft else {})}
    data = yaml.dump(document, Dumper=_Unshared, allow_unicode=True, width=120).encode()
    if len(data) > LARGEST:
        raise UnsupportedError(
            f"config.json would make a run_config.yaml of {sized(len(data))}; at most {sized(LARGEST)} are read back",
            "Take out of it what is no part of the model, or name another layout with --as-layout.",
        )
    return data


class _Unshared(yaml.SafeDumper):
    """Writes a list out wherever it stands, with no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _copied(model: Model, text: Json, top: Json) -> dict[str, Any]:
    """COPIED and the token ids; what config.json leaves out, the provider knows."""
    ids = {name: name for name in (*model.family.token_ids, *model.family.text_ids)}
    said = {name: text.get(field, top.get(field)) for field, name in {**COPIED, **ids}.items()}
    return {name: value for name, value in said.items() if isinstance(value, int | float)}


def _text(model: Model, c: TextConfig) -> dict[str, Any]:
    """The language model's dimensions, and what it is that Megatron's defaults are not."""
    section: dict[str, Any] = {
        "num_layers": c.layers,
        "hidden_size": c.hidden,
        "num_attention_heads": c.heads,
        "num_query_groups": c.groups,
        "kv_channels": c.head_dim,
        "vocab_size": c.vocab,
        "should_pad_vocab": False,  # padding in the file is left there on loading, and would come out on export
        "share_embeddings_and_output_weights": c.tied,
        "add_qkv_bias": model.traits.qkv_bias,
        "qk_layernorm": model.traits.qk_norm,
        "add_bias_linear": False,
        "gated_linear_unit": True,
        "hidden_dropout": 0.0,
        "normalization": "RMSNorm",
        "position_embedding_type": "mrope" if model.traits.tower else "rope",
        "activation_func": _named("torch.nn.functional.silu"),
    }
    if c.ffn:
        section["ffn_hidden_size"] = c.ffn
    if model.traits.zero_centred_norms:
        section["layernorm_zero_centered_gamma"] = True
    return section | (_experts(c, model.traits) if c.experts else {})


def _experts(c: TextConfig, traits: Traits) -> dict[str, Any]:
    section: dict[str, Any] = {
        "num_moe_experts": c.experts,
        "moe_ffn_hidden_size": c.moe_ffn,
        "moe_grouped_gemm": True,
        "moe_router_load_balancing_type": "global_aux_loss" if traits.shared_expert else "aux_loss",
        "moe_aux_loss_coeff": 1e-3,
    }
    if traits.shared_expert:
        section |= {
            "moe_shared_expert_intermediate_size": c.shared_ffn,
            "moe_shared_expert_gate": True,
            "moe_router_dtype": "fp32",
        }
    if not traits.tower:  # what Megatron-Bridge sets, and what the classes of models with a tower have by default
        section |= {"moe_token_dispatcher_type": "alltoall", "moe_permute_fusion": True}
    elif traits.dense_layers:  # fields of their classes alone
        section |= {"head_dim": c.head_dim, "decoder_sparse_step": 1, "mlp_only_layers": sorted(c.dense_layers)}
    if c.dense_layers:
        section["moe_layer_freq"] = [int(c.is_moe(layer)) for layer in range(c.layers)]
    return section


def _runtime(hf_config: Json, config: ModelConfig) -> dict[str, Any]:
    """What no shape shows."""
    found = runtime_facts(hf_config, config)
    facts = {name: fact.value for name, fact in found.items()}
    section = {"rotary_base": facts["rope_theta"], "layernorm_epsilon": facts["rms_norm_eps"]}
    if model_of(config).traits.tower:
        section["mrope_section"] = list(facts["mrope_section"])
    elif facts["rope_type"] != "default":
        raise UnsupportedError(
            f"config.json: {shown(found['rope_type'].place)} is {shown(facts['rope_type'])}; run_config.yaml is "
            "written for a rope that is not scaled",
            "Name another layout with --as-layout.",
        )
    if "partial_rotary" in facts:
        section["rotary_percent"] = facts["partial_rotary"]
    return section | ({"moe_router_topk": facts["experts_per_token"]} if config.text.experts else {})


def _dtype(dtype: str) -> dict[str, Any]:
    return {"params_dtype": _named(f"torch.{dtype}"), "bf16": dtype == "bfloat16", "fp16": dtype == "float16"}


def _named(target: str) -> dict[str, Any]:
    """A function or a dtype: named, not called."""
    return {"_call_": False, "_target_": target}


def _transformers(target: str, section: Json, dtype: str) -> dict[str, Any]:
    """One of transformers' configs, in the spelling that 4.57 and 5 read.

    Made by from_dict: under transformers 5, arguments of the class itself named rope_theta or rope_scaling are dropped.
    """
    said = {key: value for key, value in section.items() if key not in NOT_COPIED and not key.startswith("_")}
    return {"_call_": True, "_target_": f"{target}.from_dict", "config_dict": {**said, "dtype": dtype}}
