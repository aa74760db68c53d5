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


def meta_shapes(hf_config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Hub name -> shape, for any version of transformers."""
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(hf_model_config(hf_config))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=True)}
    if (
        int(transformers.__version__.split(".")[0]) >= 5
    ):  # its experts are [E, out, in]; the Hub's and 4.57's [E, in, out]
        experts = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
        shapes = {
            name: (shape[0], shape[2], shape[1]) if name.endswith(experts) else shape for name, shape in shapes.items()
        }
    if hf_config["model_type"] == "qwen2_5_vl":  # the class moved its parts below `model.`, the Hub's files did not
        shapes = {
            name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): shape
            for name, shape in shapes.items()
        }
    return shapes
