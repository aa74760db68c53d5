"""An adapter under the names of each trainer's module wrappers: whole tensors, one key per layer."""

from __future__ import annotations

from .making import Made, Tensors


def bridge(made: Made) -> Tensors:
    """Megatron-Bridge's LoRA: a pair for each module."""
    return {f"{m}.adapter.linear_in.weight": t for m, t in made.a.items()} | {
        f"{m}.adapter.linear_out.weight": t for m, t in made.b.items()
    }


def swift(made: Made) -> Tensors:
    """ms-swift's, with the names of peft."""
    return {f"{m}.lora_A.default.weight": t for m, t in made.a.items()} | {
        f"{m}.lora_B.default.weight": t for m, t in made.b.items()
    }


def wrapped(made: Made, inner: str) -> Tensors:
    """The base, its adapted modules inside a wrapper: "base_layer" or "to_wrap"."""
    out: Tensors = {}
    for name, tensor in made.base.items():
        module = next((m for m in made.a if name.startswith(f"{m}.")), "")
        out[f"{module}.{inner}.{name.removeprefix(f'{module}.')}" if module else name] = tensor
    return out
