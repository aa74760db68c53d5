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

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from . import ranks
from .families import language_top, vision_top
from .formulas import Tensors
from .hybrid.names import joined
from .theirs import EPS, THETA, TOP_K, text_model, vision_block


def mcore_text_logits(state: Tensors, config: ModelConfig, ids: Tensor) -> Tensor:
    """Logits of megatron-core's GPTModel (its local modules, plain rope, causal mask).

    Args:
        state: mcore tensors, full, one for each layer, experts [E, 2M, H] and [E, H, M]; norms named as with
            Transformer Engine or as local modules name them.
            The language model's with `language_model.` or without; a Gated DeltaNet's in_proj and conv1d flat and
            whole, or in torch_dist's parts. Those of the vision model and of an MTP head are ignored, any other surplus
            or gap is an error.
        config: the model.
        ids: token ids [batch, length].

    Returns:
        [batch, length, rows], rows as the embedding's: padding included.
    """
    language = {name: tensor for name, tensor in language_part(state).items() if not name.startswith("mtp.")}
    logits: Tensor = ranks.run(1, "mcore.running:text_logits", language, config, ids, THETA, EPS, TOP_K)[0]
    return logits


def language_part(state: Tensors) -> Tensors:
    """The language model's tensors without a prefix; parts of torch_dist put together."""
    theirs = (name for name in state if not name.startswith("vision_model."))
    return joined({name.removeprefix("language_model."): state[name] for name in theirs})


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
    head = f"{language_top(config)}.embed_tokens.weight" if config.text.tied else "lm_head.weight"
    return hf_text_hidden(hf, config, ids) @ hf[head].float().T


def hf_text_hidden(hf: Tensors, config: ModelConfig, ids: Tensor) -> Tensor:
    """What transformers' text model gives to the output layer: [batch, length, width]."""
    text, top = text_model(config), f"{language_top(config)}."
    state = {name.removeprefix(top): tensor.float() for name, tensor in hf.items() if name.startswith(top)}
    state = as_transformers_has_experts(state, {name: p.shape for name, p in text.named_parameters()})
    text.load_state_dict(state, strict=True)
    with torch.no_grad():
        hidden: Tensor = text(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def hf_vision_block(hf: Tensors, config: ModelConfig, block: int, hidden: Tensor) -> Tensor:
    """Output of transformers' vision block, rotated by nothing (cos 1, sin 0), all patches in one window."""
    prefix = f"{vision_top(config)}.blocks.{block}."
    module = vision_block(config)
    module.load_state_dict(
        {n.removeprefix(prefix): t.float() for n, t in hf.items() if n.startswith(prefix)}, strict=True
    )
    length, angles = hidden.shape[0], config.tower.hidden // config.tower.heads
    still = (torch.ones(length, angles), torch.zeros(length, angles))
    with torch.no_grad():
        output: Tensor = module(
            hidden.float(), cu_seqlens=torch.tensor([0, length], dtype=torch.int32), position_embeddings=still
        )
    return output


def as_transformers_has_experts(state: Tensors, shapes: dict[str, torch.Size]) -> Tensors:
    """transformers 5 packs what the Hub has one by one, and has what the Hub has transposed the other way round.

    4.57 keeps both as the Hub has them.
    """
    state = dict(state)
    packed = [name for name in shapes if name.endswith(".mlp.experts.gate_up_proj") and name not in state]
    for at in [name.removesuffix(".gate_up_proj") for name in packed]:
        count = shapes[f"{at}.gate_up_proj"][0]
        gate, up, down = (
            torch.stack([state.pop(f"{at}.{e}.{x}_proj.weight") for e in range(count)]) for x in ("gate", "up", "down")
        )
        state |= {f"{at}.gate_up_proj": torch.cat([gate, up], dim=1), f"{at}.down_proj": down}
    for name in [n for n in state if ".mlp.experts." in n and state[n].shape != shapes[n]]:
        state[name] = state[name].transpose(1, 2).contiguous()
    return state
