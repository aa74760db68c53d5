"""Forward passes of an MTP head: what it says about the token after the next.

    ours = mcore_mtp_logits(state, config, ids)[:, :-1]   # nothing comes after the last token
    theirs = hf_mtp_logits(hf, config, ids)

transformers has no MTP head. It is put together here of transformers' own layer and norms, as vLLM puts it together.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from .. import ranks
from ..families import language_top
from ..forward import as_transformers_has_experts, hf_text_hidden, language_part
from ..slices import Tensors
from ..theirs import EPS, THETA, TOP_K, text_model


def mcore_mtp_logits(state: Tensors, config: ModelConfig, ids: Tensor) -> Tensor:
    """Logits [batch, length, rows] of megatron-core's MTP head; those of the last position mean nothing.

    Args:
        state: as `forward.mcore_text_logits` takes it, the MTP head too.
        config: the model.
        ids: token ids [batch, length].
    """
    logits: Tensor = ranks.run(1, "mcore.running:mtp_logits", language_part(state), config, ids, THETA, EPS, TOP_K)[0]
    return logits


def hf_mtp_logits(hf: Tensors, config: ModelConfig, ids: Tensor) -> Tensor:
    """Logits [batch, length - 1, vocabulary] of the head made of transformers' parts."""
    top = f"{language_top(config)}."
    one = text_model(replace(config, text=replace(config.text, layers=1, linear_layers=frozenset())))
    # Its embedding is not used: it is given vectors. Its last norm is the head's.
    state = {name.removeprefix("mtp."): t.float() for name, t in hf.items() if name.startswith("mtp.layers.")}
    state |= {"norm.weight": hf["mtp.norm.weight"].float(), "embed_tokens.weight": one.embed_tokens.weight}
    shapes = {name: p.shape for name, p in one.named_parameters()}
    one.load_state_dict(as_transformers_has_experts(state, shapes), strict=True)
    embedding = hf[f"{top}embed_tokens.weight"].float()
    output = embedding if config.text.tied else hf["lm_head.weight"].float()
    with torch.no_grad():
        parts = []
        for name, vectors in (
            ("embedding", embedding[ids[:, 1:]]),
            ("hidden", hf_text_hidden(hf, config, ids)[:, :-1]),
        ):
            norm = type(one.norm)(config.text.hidden, eps=EPS)
            norm.load_state_dict({"weight": hf[f"mtp.pre_fc_norm_{name}.weight"].float()})
            parts.append(norm(vectors))
        joint = torch.cat(parts, dim=-1) @ hf["mtp.fc.weight"].float().T
        hidden: Tensor = one(inputs_embeds=joint, use_cache=False).last_hidden_state
        return hidden @ output.T
