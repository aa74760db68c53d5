"""Which parallel sizes a model can be cut for."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import MismatchError
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...tensors.sharding import Topology
from ..layout import Layout


def check_divides(config: ModelConfig, layout: Layout, topology: Topology) -> None:
    """What tensor parallelism deals out comes in whole pieces: query groups and heads, not rows of one.

    Raises:
        MismatchError: naming the fields that do not divide, and the sizes that would do.
    """
    c, v = config.text, config.vision
    dealt = _attention(config, topology.tp)
    if len(c.dense_layers) or not c.experts:
        dealt["text_config.intermediate_size"] = c.ffn
    if c.linear_layers:
        dealt |= {"text_config.linear_num_key_heads": c.key_heads, "text_config.linear_num_value_heads": c.value_heads}
    if c.shared_ffn:
        dealt["text_config.shared_expert_intermediate_size"] = c.shared_ffn
    if v and not layout.replicated:
        dealt |= {
            "vision_config.num_heads": v.heads,
            "vision_config.intermediate_size": v.ffn,
            "the merged vision width": v.merged,
        }
    _divide("tensor parallel size", topology.tp, dealt)
    if c.experts:
        _divide("expert tensor parallel size", topology.etp, {"text_config.moe_intermediate_size": c.moe_ffn})
        _divide("expert parallel size", topology.ep, {"text_config.num_experts": c.experts})


def _divide(what: str, size: int, dealt: Mapping[str, int]) -> None:
    wrong = [f"{name} = {count}" for name, count in dealt.items() if count % size]
    if wrong:
        fitting = ", ".join(
            str(n) for n in range(1, min(dealt.values()) + 1) if not any(count % n for count in dealt.values())
        )
        raise MismatchError(f"{what} {size} does not divide {', '.join(wrong)}", f"Sizes that would do: {fitting}.")


def _attention(config: ModelConfig, tp: int) -> dict[str, int]:
    """What attention comes in.

    Among more ranks than there are query groups megatron-core cuts the rows of linear_qkv all the same, within groups,
    and gathers them when it computes; but it then forgets to cut the gates of gated attention.
    """
    c = config.text
    if tp > c.groups and tp % c.groups == 0 and not model_of(config).traits.gated_attention:
        return {"text_config.num_attention_heads": c.heads}
    return {"text_config.num_key_value_heads": c.groups}
