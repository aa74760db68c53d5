"""A PEFT directory to write: the tensors under peft's names, and what adapter_config.json says of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import UnsupportedError, shown
from ...formats.directory.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ...formats.output_file import OutFile, small_file
from ...formats.safetensors import plan_file
from ...models.shared.config import ModelConfig
from ...tensors.mapped import Mapped
from ...tensors.spec import Reader
from ..adapter import Adapter, Pair
from .experts_last import ExpertsLast
from .factors import Factors, factors
from .stated import OUT_FIRST
from .targets import gather

MERGE = "Merge it instead: leave --adapter out."
"""The way out where peft has no form for an adapter."""


class Written(NamedTuple):
    """What is to be written.

    Attributes:
        reader: the tensors under peft's names.
        config: adapter_config.json.
        factors: one for each pair of tensors, in the model's order.
        left: pairs of a multi-token-prediction head, for which transformers has no module.
    """

    reader: Reader
    config: dict[str, Any]
    factors: list[Factors]
    left: list[Pair]

    @property
    def one_scale(self) -> bool:
        """Whether all of it is scaled by one number."""
        return len({found.alpha / found.rank for found in self.factors}) == 1


def to_write(adapter: Adapter, config: ModelConfig, *, packed: bool, base: str = "") -> Written:
    """An adapter in peft's names.

    Args:
        adapter: with at least one pair.
        config: of the model that it changes.
        packed: experts in the form of transformers 5: two parameters of all experts; else one by one.
        base: base_model_name_or_path; "": not known.

    Raises:
        UnsupportedError: transformers has a module for none of it, or parts of one matrix are scaled differently.
    """
    targets, left = gather(adapter, config, packed=packed)
    if not targets:
        raise UnsupportedError(no_module_for(left), MERGE)
    found = [factors(target, adapter.reader) for target in targets]
    copies = [copy for one in found for copy in one.copies]
    fills = [box for one in found for box in one.fills]
    apart = frozenset(one.b for one in found if one.target.experts)
    reader = ExpertsLast(Mapped(adapter.reader, copies, fills), apart)
    return Written(reader, stated(found, base), found, left)


def no_module_for(left: Sequence[Pair]) -> str:
    """That transformers has no module for some pairs, in words."""
    return (
        f"{len(left)} matrices of the multi-token-prediction head have an adapter, such as {shown(left[0].module)}, "
        "and transformers has no such module"
    )


def stated(found: Sequence[Factors], base: str) -> dict[str, Any]:
    """adapter_config.json. Modules have their whole names: the end of one may be that of another, too."""
    counts = Counter((one.rank, one.alpha) for one in found)
    rank, alpha = max(counts, key=lambda pair: counts[pair])
    others = [one for one in found if (one.rank, one.alpha) != (rank, alpha)]
    parameters = [one.target.name for one in found if one.target.parameter]
    version = {"peft_version": ".".join(map(str, OUT_FIRST))} if parameters else {}  # earlier ones took them otherwise
    return version | {
        "alpha_pattern": {one.target.name: _number(one.alpha) for one in others if one.alpha != alpha},
        "auto_mapping": None,
        "base_model_name_or_path": base or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _number(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {one.target.name: one.rank for one in others if one.rank != rank},
        "target_modules": [one.target.name for one in found if not one.target.parameter],
        "target_parameters": parameters or None,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _number(alpha: float) -> float:
    """As JSON spells it: 32, not 32.0."""
    return int(alpha) if float(alpha).is_integer() else alpha


def peft_files(reader: Reader, config: Mapping[str, Any]) -> list[OutFile]:
    """The two files of the directory: tensors under peft's names, and adapter_config.json."""
    data = (json.dumps(config, indent=2) + "\n").encode()
    return [plan_file(ADAPTER_WEIGHTS, reader.specs.values()), small_file(ADAPTER_CONFIG, data)]
