"""On a rank: forward passes of megatron-core in float32, with its own (local) modules. Called by `forward`."""

from __future__ import annotations

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import build_module
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from . import specs
from .formulas import Tensors
from .topology import Topology

# How the local modules spell the norms that Transformer Engine (or megatron-core's key map for it) keeps inside linear
# layers.
_LOCAL = {
    "self_attention.linear_qkv.layer_norm_": "input_layernorm.",
    "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm.",
}


def text_logits(state: Tensors, config: ModelConfig, ids: Tensor, theta: float, eps: float, topk: int) -> Tensor:
    """Logits [batch, length, rows] of a GPTModel that holds `state`."""
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    transformer = specs.language_config(config, Topology(), dtype=torch.float32, eps=eps, topk=topk)
    gpt = GPTModel(
        transformer,
        specs.language_spec(transformer, "local"),
        vocab_size=state["embedding.word_embeddings.weight"].shape[0],
        max_sequence_length=ids.shape[1],
        share_embeddings_and_output_weights=config.text.tied,
        position_embedding_type="rope",
        rotary_base=theta,
    )
    _load(gpt, state)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    masked = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()[None, None]
    with torch.no_grad():
        logits: Tensor = gpt(ids, positions, masked)
    return logits.detach().clone()


def vision_block(state: Tensors, config: ModelConfig, hidden: Tensor, eps: float) -> Tensor:
    """Output [length, width] of a TransformerLayer that holds `state`."""
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    spec = specs.vision_spec("local")
    # megatron-core's local vision spec masks causally by default; a vision block sees every patch.
    spec.submodules.self_attention.params["attn_mask_type"] = AttnMaskType.no_mask
    layer = build_module(spec, config=specs.vision_config(config, Topology(), torch.float32, eps), layer_number=1)
    _load(layer, state)
    with torch.no_grad():
        output, _ = layer(hidden.float()[:, None], attention_mask=None)
    return output[:, 0].detach().clone()


def _load(module: torch.nn.Module, state: Tensors) -> None:
    """Load canonical names into local modules; whatever is left over or missing is an error."""
    local = {}
    for name, tensor in state.items():
        for engine, own in _LOCAL.items():
            name = name.replace(engine, own)
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
