"""Names and shapes that transformers expects for a config, from a model without memory, told as the Hub's files have
them.
"""

from __future__ import annotations

from typing import Any


def hf_model_config(hf_config: dict[str, Any]) -> Any:
    """The configuration object of a config.json, by the model's own class."""
    import copy

    from transformers import AutoConfig

    config = copy.deepcopy(hf_config)
    return AutoConfig.for_model(config.pop("model_type"), **config)


EXPERTS_ON_HUB = {
    "qwen3_vl_moe": "transposed",
    "qwen3_moe": "one by one",
    "qwen3_next": "one by one",
    "qwen3_5_moe": "packed",
    "qwen3_5_moe_text": "packed",
}
"""How the Hub's files hold experts. In transformers 5 they are packed, [E, out, in], whatever the model."""


def meta_shapes(hf_config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Hub name -> shape, for any version of transformers; without a multi-token-prediction head, which it drops."""
    import torch
    import transformers

    auto = (
        transformers.AutoModelForImageTextToText if "vision_config" in hf_config else transformers.AutoModelForCausalLM
    )
    with torch.device("meta"):
        model = auto.from_config(hf_model_config(hf_config))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=True)}
    if int(transformers.__version__.split(".")[0]) >= 5:  # 4.57 has them as the Hub
        form = EXPERTS_ON_HUB.get(hf_config["model_type"], "")
        shapes = dict(pair for name, shape in shapes.items() for pair in _as_on_hub(name, shape, form))
    if hf_config["model_type"] == "qwen2_5_vl":  # the class moved its parts below `model.`, the Hub's files did not
        shapes = {
            name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): shape
            for name, shape in shapes.items()
        }
    return shapes


def _as_on_hub(name: str, shape: tuple[int, ...], form: str) -> list[tuple[str, tuple[int, ...]]]:
    """One tensor of transformers 5, and its shape: the Hub's tensors that it is."""
    stem, _, part = name.rpartition(".")
    if not stem.endswith(".mlp.experts") or form == "packed":
        return [(name, shape)]
    experts, rows, columns = shape
    if form == "transposed":
        return [(name, (experts, columns, rows))]
    parts = {"gate_proj": rows // 2, "up_proj": rows // 2} if part == "gate_up_proj" else {"down_proj": rows}
    return [(f"{stem}.{e}.{one}.weight", (n, columns)) for e in range(experts) for one, n in parts.items()]
