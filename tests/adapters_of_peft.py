"""Adapters that peft itself makes, on tiny models in transformers: made, saved, loaded, merged.

peft is the witness: what it saves is read, and what is written it loads.
"""

from __future__ import annotations

import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from logits import inputs, load
from torch import Tensor
from tqdm import tqdm

tqdm.monitor_interval = 0  # the thread that watches progress bars would outlive the test

RANK, ALPHA = 4, 12


def adapted(hf: Path, dtype: str = "float32", **fields: Any) -> Any:
    """A model with an adapter on it, A and B random; both depend on their names alone.

    Args:
        hf: the base's directory.
        dtype: the base computes in.
        fields: of LoraConfig.
    """
    from peft import LoraConfig, get_peft_model

    asked = {"r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM"} | fields
    model = get_peft_model(load(hf, dtype), LoraConfig(**asked))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            scale = parameter.shape[1] ** -0.5
            parameter.data = (scale * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)
    return model.eval()


def save_adapter(hf: Path, directory: Path, dtype: str = "float32", **fields: Any) -> dict[str, Tensor]:
    """Make an adapter and have peft save it; its tensors as they are in the file."""
    adapted(hf, dtype, **fields).save_pretrained(directory)
    return adapter_tensors(directory)


def adapter_tensors(directory: Path) -> dict[str, Tensor]:
    """What adapter_model.safetensors holds, read by safetensors."""
    from safetensors.torch import load_file

    return dict(load_file(directory / "adapter_model.safetensors"))


def load_adapter(hf: Path, directory: Path, dtype: str = "float32") -> Any:
    """The base with the adapter of a directory. A warning, as of missing or unexpected keys, is an error."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return PeftModel.from_pretrained(load(hf, dtype), directory).eval()


def layers_of(model: Any) -> dict[str, tuple[int, float]]:
    """Rank and scale of every module that peft has wrapped."""
    from peft.tuners.lora import LoraLayer

    wrapped = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    return {name: (module.r["default"], module.scaling["default"]) for name, module in wrapped.items()}


def state_of(model: Any) -> dict[str, Tensor]:
    """The adapter's tensors in a model, under the names that peft saves them by."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model))


def logits_of(model: Any, hf: Path) -> Tensor:
    """Of a forward pass over text and, where the model sees, images."""
    config = json.loads((hf / "config.json").read_text())
    with torch.no_grad():
        found: Tensor = model(**inputs(config)).logits
    return found


def linear(*names: str) -> dict[str, Any]:
    """Fields of LoraConfig that target modules with these names."""
    return {"target_modules": list(names)}


EXPERTS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
"""Fields of LoraConfig that target the experts of a layer in transformers 5."""
