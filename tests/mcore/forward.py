"""Forward passes: megatron-core on mcore tensors, transformers on Hugging Face tensors. What agrees here has the layout
right, whoever converted it.

    ours = mcore_text_logits(state, config, ids)              # state: canonical mcore names, one full tensor per layer
    theirs = hf_text_logits(hf, config, ids)                  # hf: the Hub's names
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    mcore_vision_block(state, config, 1, hidden), hf_vision_block(hf, config, 1, hidden)

Everything is computed in float32. Use `random_hf_tensors(config, scale=0.05)`, or rounding grows with every layer. The
megatron-core side runs in one rank,
0.1 s when the nursery is warm; transformers runs in the calling process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from . import ranks
from .formulas import Tensors, language_top, vision_top

THETA = 5e6
EPS = 1e-6
TOP_K = 2


def mcore_text_logits(state: Tensors, config: ModelConfig, ids: Tensor) -> Tensor:
    """Logits of megatron-core's GPTModel (its local modules, plain rope, causal mask).

    Args:
        state: mcore tensors, full, one for each layer, experts [E, 2M, H] and [E, H, M]; norms named as with
            Transformer Engine or as local modules name them.
            Those of the vision model are ignored, any other surplus or gap is an error.
        config: the model.
        ids: token ids [batch, length].

    Returns:
        [batch, length, rows], rows as the embedding's: padding included.
    """
    language = {
        name.removeprefix("language_model."): tensor
        for name, tensor in state.items()
        if not name.startswith("vision_model.")
    }
    logits: Tensor = ranks.run(1, "mcore.running:text_logits", language, config, ids, THETA, EPS, TOP_K)[0]
    return logits


def mcore_vision_block(state: Tensors, config: ModelConfig, block: int, hidden: Tensor) -> Tensor:
    """Output of one megatron-core TransformerLayer as a vision block: no rope, no mask; Qwen2.5-VL's kind by
    config.model_type.

    Args:
        state: mcore tensors, full, one for each layer; the block's are picked out.
        config: the model.
        block: its number, from 0.
        hidden: patches [length, width].
    """
    prefix = f"vision_model.decoder.layers.{block}."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    output: Tensor = ranks.run(1, "mcore.running:vision_block", own, config, hidden, EPS)[0]
    return output


def hf_text_logits(hf: Tensors, config: ModelConfig, ids: Tensor) -> Tensor:
    """Logits of transformers' text model: [batch, length, vocabulary]."""
    text, top = _text_model(config), f"{language_top(config)}."
    state = {name.removeprefix(top): tensor.float() for name, tensor in hf.items() if name.startswith(top)}
    # transformers 5 keeps experts the other way round than the Hub's files, which 4.57 keeps as they are.
    shapes = {name: parameter.shape for name, parameter in text.named_parameters()}
    for name in [n for n in state if ".mlp.experts." in n and state[n].shape != shapes[n]]:
        state[name] = state[name].transpose(1, 2).contiguous()
    text.load_state_dict(state, strict=True)
    head = hf[f"{top}embed_tokens.weight" if config.text.tied else "lm_head.weight"].float()
    with torch.no_grad():
        return text(input_ids=ids, use_cache=False).last_hidden_state @ head.T


def hf_vision_block(hf: Tensors, config: ModelConfig, block: int, hidden: Tensor) -> Tensor:
    """Output of transformers' vision block, rotated by nothing (cos 1, sin 0), all patches in one window."""
    prefix = f"{vision_top(config)}.blocks.{block}."
    module = _vision_block(config)
    module.load_state_dict(
        {n.removeprefix(prefix): t.float() for n, t in hf.items() if n.startswith(prefix)}, strict=True
    )
    length, angles = hidden.shape[0], config.vision.hidden // config.vision.heads
    still = (torch.ones(length, angles), torch.zeros(length, angles))
    with torch.no_grad():
        output: Tensor = module(
            hidden.float(), cu_seqlens=torch.tensor([0, length], dtype=torch.int32), position_embeddings=still
        )
    return output


def _text_model(config: ModelConfig) -> Any:
    import transformers as t

    c = config.text
    # Both spellings of rope: 4.57 reads rope_scaling and rope_theta, 5 rope_parameters. The sections add up to half a
    # head.
    section = [c.head_dim // 2 - 2 * (c.head_dim // 8), c.head_dim // 8, c.head_dim // 8]
    rope = {"rope_type": "default", "mrope_section": section}
    common: dict[str, Any] = {
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.groups,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "rope_scaling": rope,
        "rope_parameters": {**rope, "rope_theta": THETA},
        "max_position_embeddings": 4096,
        "attn_implementation": "eager",
    }
    if config.model_type == "qwen2_5_vl":
        return t.Qwen2_5_VLTextModel(t.Qwen2_5_VLTextConfig(**common)).float().eval()
    common |= {"head_dim": c.head_dim, "attention_bias": False}
    if not c.experts:
        return t.Qwen3VLTextModel(t.Qwen3VLTextConfig(**common)).float().eval()
    moe = {
        "num_experts": c.experts,
        "moe_intermediate_size": c.moe_ffn,
        "num_experts_per_tok": TOP_K,
        "decoder_sparse_step": 1,
    }
    return (
        t.Qwen3VLMoeTextModel(
            t.Qwen3VLMoeTextConfig(**common, **moe, mlp_only_layers=sorted(c.dense_layers), norm_topk_prob=True)
        )
        .float()
        .eval()
    )


def _vision_block(config: ModelConfig) -> Any:
    from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl, modeling_qwen2_5_vl
    from transformers.models.qwen3_vl import configuration_qwen3_vl, modeling_qwen3_vl

    v = config.vision
    sizes: dict[str, Any] = {
        "hidden_size": v.hidden,
        "num_heads": v.heads,
        "intermediate_size": v.ffn,
        "depth": v.depth,
        "attn_implementation": "eager",
    }
    if config.model_type == "qwen2_5_vl":
        theirs = configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig(**sizes, hidden_act="silu")
        return modeling_qwen2_5_vl.Qwen2_5_VLVisionBlock(theirs, attn_implementation="eager").float().eval()
    ours = configuration_qwen3_vl.Qwen3VLVisionConfig(**sizes, hidden_act="gelu_pytorch_tanh")
    return modeling_qwen3_vl.Qwen3VLVisionBlock(ours, attn_implementation="eager").float().eval()
