"""adapter_config.json: what a PEFT directory states of its adapter. Read field by field; what is not known is refused.

A field that says nothing (null, false, empty) may be there under any name: peft writes all that it knows of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CorruptError, UnsupportedError, shown, shown_path
from ...formats.directory.contents import ADAPTER_CONFIG
from ...formats.json_file import read_json
from .patterns import Patterns

REFUSED = {
    "use_dora": "DoRA: weights are normalised anew after the change, and no adapter of two matrices says so",
    "modules_to_save": "modules trained as a whole, beside the adapter",
    "trainable_token_indices": "single rows of the embedding, trained beside the adapter",
    "lora_bias": "biases trained beside the adapter",
    "fan_in_fan_out": "weights stored as [in, out]",
    "layer_replication": "layers that are there several times",
    "alora_invocation_tokens": "an activated LoRA, which changes the model only after certain tokens",
    "use_qalora": "QALoRA: inputs are averaged in groups",
    "use_bdlora": "matrices of blocks",
    "arrow_config": "several adapters that a router mixes",
    "kasa_config": "KaSA: singular values between the two matrices",
    "monteclora_config": "MonteCLoRA: matrices that are drawn anew",
    "velora_config": "VeLoRA",
    "megatron_config": "adapters of Megatron's own parallel layers",
}
"""Fields by which an adapter is something else than W + alpha / r * B @ A."""

HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config", "exclude_modules"),
    *("inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha"),
    *("lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"),
    *("rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules", "target_parameters"),
    *("task_type", "use_rslora", "ensure_weight_tying"),
}
"""Fields that are read, or that say where an adapter comes from or how it was trained."""

KEEPING = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to begin (init_lora_weights) that leave the base's weights as they are."""


OUT_FIRST = (0, 19, 1)
"""The first version of peft that takes a parameter [experts, out, in] for what it is. Those before take it for
[experts, in, out]: A and B of each expert are B and A, transposed, of what they are here."""


class Stated(NamedTuple):
    """What an adapter_config.json says.

    Attributes:
        rank, alpha: of every module that no pattern names.
        ranks, alphas: rank_pattern and alpha_pattern.
        root: alpha is divided by the square root of the rank (use_rslora).
        parameters: target_parameters.
        base: base_model_name_or_path; "" where it says nothing.
        version: peft_version, three numbers; () where it says nothing, or that of a version between two.
    """

    rank: int
    alpha: float
    ranks: Patterns
    alphas: Patterns
    root: bool
    parameters: tuple[str, ...]
    base: str
    version: tuple[int, ...] = ()

    def rank_of(self, path: str) -> int:
        """The rank of a module or parameter, by its path in the model."""
        return int(self.ranks.of(path, self.rank))

    def alpha_of(self, path: str) -> float:
        """What B @ A is multiplied by, times the rank.

        Raises:
            UnsupportedError: use_rslora, and no number over this rank is the scale that peft takes.
        """
        alpha, rank = self.alphas.of(path, self.alpha), self.rank_of(path)
        if not self.root:
            return alpha
        scale = alpha / math.sqrt(rank)
        found = scale * rank
        if found / rank != scale:
            raise UnsupportedError(
                f"{ADAPTER_CONFIG}: use_rslora with rank {rank}: alpha / sqrt(rank) is no number over the rank",
                "Save the adapter with use_rslora false and that scale.",
            )
        return found


def read_stated(directory: Path) -> Stated:
    """What the adapter_config.json of a directory says.

    Raises:
        CorruptError: it is missing, no JSON object, or a field cannot be.
        UnsupportedError: what it describes is no plain LoRA adapter; names the field.
        ReadError: the system does not let it be read.
    """
    path = directory / ADAPTER_CONFIG
    said, where = read_json(path), shown_path(path)
    _refuse(said, where)
    base = said.get("base_model_name_or_path")
    return Stated(
        rank=_rank(said.get("r"), f"{where}: r"),
        alpha=_alpha(said.get("lora_alpha"), f"{where}: lora_alpha"),
        ranks=_patterns(said, "rank_pattern", where, _rank),
        alphas=_patterns(said, "alpha_pattern", where, _alpha),
        root=said.get("use_rslora") is True,
        parameters=_names(said.get("target_parameters"), f"{where}: target_parameters"),
        base=base if isinstance(base, str) else "",
        version=_version(said.get("peft_version")),
    )


def _refuse(said: Mapping[str, Any], where: str) -> None:
    """Refuse whatever is no plain LoRA adapter."""
    kind = said.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{where}: peft_type is {shown(kind)}", "LoRA adapters (peft_type LORA) are converted.")
    for name, what in REFUSED.items():
        if said.get(name):
            raise UnsupportedError(f"{where}: {name} is {shown(said[name])}: {what}", "Only plain LoRA is converted.")
    if said.get("bias", "none") != "none":
        raise UnsupportedError(
            f"{where}: bias is {shown(said['bias'])}: biases trained beside the adapter",
            "Only plain LoRA is converted.",
        )
    begun = said.get("init_lora_weights")
    if not any(begun is way or (type(begun) is str and begun == way) for way in KEEPING):
        raise UnsupportedError(
            f"{where}: init_lora_weights is {shown(begun)}, which changes the base's weights before training",
            "Have peft convert it when it saves it: save_pretrained(…, path_initial_model_for_weight_conversion=…).",
        )
    unknown = [name for name, value in said.items() if value and name not in HARMLESS and name not in REFUSED]
    if unknown:
        raise UnsupportedError(
            f"{where}: {shown(unknown[0])} is {shown(said[unknown[0]])}, which is not known here",
            "If it changes nothing of how the adapter is applied, take the field out.",
        )


def _version(value: object) -> tuple[int, ...]:
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", value, re.ASCII) if isinstance(value, str) else None
    return tuple(map(int, found.groups())) if found else ()


def _rank(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= 2**16:
        raise CorruptError(f"{where} is {shown(value)}, not a rank")
    return value


def _alpha(value: object, where: str) -> float:
    if type(value) not in (int, float) or not 0 < float(value) < 2.0**31:  # type: ignore[arg-type]
        raise CorruptError(f"{where} is {shown(value)}, not a number greater than 0")
    return float(value)  # type: ignore[arg-type]


def _patterns(said: Mapping[str, Any], name: str, where: str, value: Any) -> Patterns:
    stated = said.get(name) or {}
    if not isinstance(stated, dict):
        raise CorruptError(f"{where}: {name} is {shown(stated)}, not an object")
    return Patterns(
        {key: value(one, f"{where}: {name} of {shown(key)}") for key, one in stated.items()}, f"{where}: {name}"
    )


def _names(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CorruptError(f"{where} is {shown(value)}, not a list of names")
    return tuple(value)
