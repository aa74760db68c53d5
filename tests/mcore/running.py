"""On a rank: forward passes of megatron-core in float32, with its own (local) modules. Called by `forward`."""

from __future__ import annotations

from dataclasses import replace

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import build_module
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from . import specs
from .families import hybrid
from .formulas import Tensors
from .hybrid import specs as hybrids
from .topology import Spec, Topology

# How the local modules spell the norms that Transformer Engine (or megatron-core's key map for it) keeps inside linear
# layers.
_LOCAL = {
    "self_attention.linear_qkv.layer_norm_": "input_layernorm.",
    "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm.",
}


def text_logits(state: Tensors, config: ModelConfig, ids: Tensor, theta: float, eps: float, topk: int) -> Tensor:
    """Logits [batch, length, rows] of a GPTModel that holds `state`, without an MTP head."""
    config = replace(config, text=replace(config.text, mtp=0))
    gpt = _language_model(state, config, ids.shape[1], theta, eps, topk)
    with torch.no_grad():
        logits: Tensor = gpt(ids, *_positions_and_mask(ids))
    return logits.detach().clone()


def mtp_logits(state: Tensors, config: ModelConfig, ids: Tensor, theta: float, eps: float, topk: int) -> Tensor:
    """Logits [batch, length, rows] of the MTP head of a GPTModel that holds `state`; megatron-core itself returns but
    their loss.
    """
    gpt = _language_model(state, config, ids.shape[1], theta, eps, topk)
    positions, masked = _positions_and_mask(ids)
    with torch.no_grad():
        embedded, angles, *_ = gpt._preprocess(ids, positions)
        hidden = gpt.decoder(hidden_states=embedded, attention_mask=masked, rotary_pos_emb=angles)
        both = gpt.mtp(
            input_ids=ids,
            position_ids=positions,
            hidden_states=hidden,
            attention_mask=masked,
            rotary_pos_emb=angles,
            embedding=gpt.embedding,
        )
        weight = gpt.shared_embedding_or_output_weight() if config.text.tied else None
        logits: Tensor = gpt.output_layer(both.chunk(2)[1], weight=weight)[0]
    return logits.transpose(0, 1).detach().clone()


def _language_model(state: Tensors, config: ModelConfig, length: int, theta: float, eps: float, topk: int) -> GPTModel:
    spec: Spec = "te" if hybrid(config) else "local"
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    transformer = specs.language_config(config, Topology(), dtype=torch.float32, eps=eps, topk=topk)
    decoder = specs.language_spec(transformer, spec)
    gpt = GPTModel(
        transformer,
        decoder,
        vocab_size=state["embedding.word_embeddings.weight"].shape[0],
        max_sequence_length=length,
        share_embeddings_and_output_weights=config.text.tied,
        position_embedding_type="rope",
        rotary_base=theta,
        rotary_percent=hybrids.ROTARY_PERCENT if hybrid(config) else 1.0,
        mtp_block_spec=hybrids.mtp(transformer, decoder, None),
    )
    _load(gpt, _as_local(state) if spec == "local" else state)
    return gpt


def _positions_and_mask(ids: Tensor) -> tuple[Tensor, Tensor]:
    length = ids.shape[1]
    return torch.arange(length).expand_as(ids), torch.ones(length, length).triu(1).bool()[None, None]


def vision_block(state: Tensors, config: ModelConfig, hidden: Tensor, eps: float) -> Tensor:
    """Output [length, width] of a TransformerLayer that holds `state`."""
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    spec = specs.vision_spec("local")
    # megatron-core's local vision spec masks causally by default; a vision block sees every patch.
    spec.submodules.self_attention.params["attn_mask_type"] = AttnMaskType.no_mask
    layer = build_module(spec, config=specs.vision_config(config, Topology(), torch.float32, eps), layer_number=1)
    _load(layer, _as_local(state))
    with torch.no_grad():
        output, _ = layer(hidden.float()[:, None], attention_mask=None)
    return output[:, 0].detach().clone()


def _as_local(state: Tensors) -> Tensors:
    """Norms under the names that local modules have for them."""
    local = {}
    for name, tensor in state.items():
        for engine, own in _LOCAL.items():
            name = name.replace(engine, own)
        local[name] = tensor
    return local


def _load(module: torch.nn.Module, state: Tensors) -> None:
    """Load experts one by one and all else as it is; whatever is left over or missing is an error."""
    local = {}
    renamed = any(".mtp_model_layer." in name for name, _ in module.named_parameters())  # from 0.19 on
    for name, tensor in state.items():
        name = name.replace(".transformer_layer.", ".mtp_model_layer.") if renamed else name
        if ".experts.experts." in name:
            local |= {
                name.replace("experts.experts", f"experts.local_experts.{e}"): one for e, one in enumerate(tensor)
            }
        else:
            local[name] = tensor
    wanted = {name for name, _ in module.named_parameters()}
    if local.keys() != wanted:
        raise KeyError(f"not in the model: {sorted(local.keys() - wanted)}; not given: {sorted(wanted - local.keys())}")
    module.load_state_dict({name: tensor.float() for name, tensor in local.items()}, strict=False)
    module.eval()
