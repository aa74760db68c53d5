"""The values that options may have, and the one form that each is put into."""

from __future__ import annotations

import re
from os import fspath
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import OptionError, shown

ExpertsForm = Literal["hub", "transformers-5", "per-expert"]
"""How a Hugging Face directory lays out its experts.

hub: `gate_up_proj` [E, H, 2I] and `down_proj` [E, I, H]; transformers-5: the same names, [E, 2I, H] and [E, H, I];
per-expert: `experts.N.gate_proj.weight` and so on.
"""

WrittenExperts = Literal["hub", "per-expert"]
AdapterExperts = Literal["transformers-5", "per-expert"]
"""How a PEFT directory lays out the adapters of experts: two parameters of all experts, or a module each."""

HfNames = Literal["old", "new"]
Mtp = Literal["require", "carry", "drop"]
MtpAsIs = Literal["require", "drop"]
Format = Literal["torch_dist", "torch"]
Witness = Literal["megatron-core", "transformers"]
Device = Literal["cpu", "cuda"]

DTYPES = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}
"""A dtype to write, by its name or its short name."""

UNITS = {
    "B": 1,
    **{f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)},
    **{f"{p}IB": 1024**n for n, p in enumerate("KMGT", 1)},
}
"""Bytes of each unit of a size."""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _given(value: Any) -> str:
    """A value as it was given, in quotes if it is text."""
    return shown((value,))[1:-1]


def _dtype(name: str, value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in DTYPES:
        raise OptionError(f"{_flag(name)} {_given(value)} is none of {', '.join(DTYPES)}")
    return DTYPES[value.lower()]


def _size(name: str, value: Any) -> int:
    """Bytes: 5000000000, "5GB" -> 5000000000, "2GiB" -> 2147483648.

    In a text the unit must be said: who writes 2 means gigabytes, as other programs take it.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if match and not match[2] and 0 < float(match[1]) < 2**63:
        raise OptionError(
            f"{_flag(name)} {_given(value)} has no unit",
            f"Write {match[1]}GB, {match[1]}MB or, for bytes, {match[1]}B.",
        )
    if not match or match[2].upper() not in UNITS or not 0 < float(match[1]) < 2**63:
        raise OptionError(f"{_flag(name)} {_given(value)} is no size such as 5GB, 500MB or 2GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise OptionError(f"{_flag(name)} {_given(value)} is no whole number from 0 on")
    return value


def _positive(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise OptionError(f"{_flag(name)} {_given(value)} is no whole number from 1 on")
    return value


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 24:
        raise OptionError(f"{_flag(name)} {_given(value)} is no number above 0")
    return float(value)


def _text(name: str, value: Any) -> str:
    return str(fspath(value))


def _texts(name: str, value: Any) -> tuple[str, ...]:
    return tuple(fspath(one) for one in ((value,) if isinstance(value, str | Path) else value))


def _prefixes(name: str, value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value)
    for prefix in found:
        if not isinstance(prefix, str) or not prefix:
            raise OptionError(f"{_flag(name)} {_given(prefix)} is no beginning of tensors' names such as model.visual.")
    return tuple(dict.fromkeys(found))


def _repository(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", value, re.ASCII):
        raise OptionError(f"{_flag(name)} {_given(value)} is no repository such as my-org/Qwen3-VL-mine")
    return value


def _path(name: str, value: Any) -> Path:
    return Path(value)


def _one_of(choices: Any) -> Any:
    known = get_args(choices)

    def rule(name: str, value: Any) -> Any:
        if value not in known:
            raise OptionError(f"{_flag(name)} {_given(value)} is none of {', '.join(known)}")
        return value

    return rule


TOPOLOGY = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "expert_model_parallel_size",
    "expert_tensor_parallel_size",
    "decoder_first_pipeline_num_layers",
    "decoder_last_pipeline_num_layers",
)
"""The options that say for which ranks a checkpoint of format torch is."""

RULES: dict[str, Any] = {
    **dict.fromkeys(TOPOLOGY, _positive),
    "threads": _positive,
    "make_vocab_size_divisible_by": _positive,
    "as_iteration": _positive,
    "iteration": _whole,
    "dtype": _dtype,
    "max_shard_size": _size,
    "memory": _size,
    "reference": _text,
    "fp8_like": _text,
    "like": _text,
    "undo": _texts,
    "push": _repository,
    "references": _texts,
    "on_disk": _path,
    "format": _one_of(Format),
    "experts": _one_of(WrittenExperts),
    "adapter_experts": _one_of(AdapterExperts),
    "hf_names": _one_of(HfNames),
    "experts_form": _one_of(ExpertsForm),
    "witness": _one_of(Witness),
    "layers": _positive,
    "device": _one_of(Device),
    "mtp": _one_of(Mtp),
    "carry": _prefixes,
    "lora_alpha": _amount,
    "base": _text,
}
"""How the value of each option is put into one form, or refused."""
