"""What a checkpoint states of its adapter: rank, alpha and what else decides how B @ A is added. Nothing is guessed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import MismatchError, UnsupportedError, shown
from ..formats.directory.statements import RUN_CONFIG, Stated

OPTION = "--lora-alpha"

ALPHA, RANK = "lora_alpha", "lora_rank"
"""As ms-swift's args.json has them."""

_IN_RUN_CONFIG = {ALPHA: "alpha", RANK: "dim"}
"""As the section `peft` of Megatron-Bridge's run_config.yaml has them."""

SIZES = ("tensor_model_parallel_size", "expert_tensor_parallel_size")

_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora-ga", "lora_ga")
"""Ways to begin an adapter that change the base's weights before the first step."""

_MERGE = "Merge it into the model with the trainer first."


class Said(NamedTuple):
    """A number and who says it."""

    value: float
    where: str


@dataclass(frozen=True)
class Told:
    """What is known of an adapter beside its tensors.

    Attributes:
        alpha: None: nobody says it.
        rank: as it is stated; None: it is not.
        rslora: the scale is alpha divided by the square root of the rank.
        topk: experts per token, by which the rank of the experts' adapters was divided; 0: it was not.
        shared: one adapter serves all experts of a layer: theirs are copies of one another.
        changes_base: how the adapter began, if that changed the base's weights; "" if not.
        sizes: the parallel sizes among SIZES that are stated.
    """

    alpha: Said | None = None
    rank: Said | None = None
    rslora: bool = False
    topk: int = 0
    shared: bool = False
    changes_base: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def alpha_over(self, rank: int) -> float:
        """What is divided by the rank to give the scale.

        Raises:
            MismatchError: nobody says it.
        """
        if self.alpha is None:
            raise MismatchError(
                "nothing beside the checkpoint states the adapter's alpha, and no tensor shows it",
                f"Give {OPTION} with that of the training, or put its run_config.yaml or args.json back beside it.",
            )
        return self.alpha.value * math.sqrt(rank) if self.rslora else self.alpha.value

    def check_rank(self, name: str, rank: int, *, expert: bool) -> None:
        """Hold a tensor's rank against what is stated.

        Raises:
            MismatchError: it is another one.
        """
        if self.rank is None:
            return
        stated = int(self.rank.value)
        wanted = stated // self.topk if expert and self.topk else stated
        step = self.sizes.get(SIZES[1], 1) if expert and self.topk else 1
        if rank not in (wanted, -(-wanted // step) * step):
            divided = f" divided by {self.topk} experts per token" if wanted != stated else ""
            raise MismatchError(
                f"{shown(name)} has rank {rank}, and {self.rank.where} states {stated}{divided}",
                "That file belongs to another training: put the right one beside the checkpoint.",
            )


def told_of(stated: Sequence[Stated], alpha: float | None) -> Told:
    """What is known of an adapter.

    Args:
        stated: what the checkpoint states of its adapter.
        alpha: what the user says.

    Raises:
        UnsupportedError: DoRA, or another way to change weights.
        MismatchError: two say different things.
    """
    for where, values in stated:
        _refuse_others(where, values)
    given = [Said(alpha, OPTION)] if alpha is not None else []
    rslora = any(values.get("use_rslora") is True for _, values in stated)
    normalized = next((s for s in stated if s.values.get("normalize_moe_lora") is True), None)
    began = (str(values.get(key)) for _, values in stated for key in ("init_weights", "init_lora_weights"))
    return Told(
        alpha=_agreed("alpha", [*given, *_numbers(stated, ALPHA)]),
        rank=_agreed("rank", list(_numbers(stated, RANK))),
        rslora=rslora,
        topk=_topk(normalized) if normalized else 0,
        shared=any(where == RUN_CONFIG and _shares(values) for where, values in stated),
        changes_base=next((how for how in began if how.startswith(_CHANGES_BASE)), ""),
        sizes={name: size for _, values in stated for name in SIZES if (size := _count(values.get(name)))},
    )


def _refuse_others(where: str, values: Mapping[str, Any]) -> None:
    target = str(values.get("_target_", "")).rpartition(".")[2].lower()
    if "dora" in target or values.get("use_dora") is True:
        raise UnsupportedError(
            f"{where} says that the adapter is a DoRA one, which changes a weight's norm, too", _MERGE
        )
    if target and "lora" not in target:
        raise UnsupportedError(f"{where} says that the adapter is a {shown(target)}, which is no LoRA", _MERGE)
    if pattern := next((name for name in ("rank_pattern", "alpha_pattern") if values.get(name)), None):
        raise UnsupportedError(f"{where} gives single modules a rank or an alpha of their own ({pattern})", _MERGE)
    if values.get("modules_to_save"):
        raise UnsupportedError(f"{where} says that modules were trained whole beside the adapter", _MERGE)


def _numbers(stated: Sequence[Stated], wanted: str) -> Iterator[Said]:
    for where, values in stated:
        name = _IN_RUN_CONFIG[wanted] if where == RUN_CONFIG else wanted
        value = values.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGEST:
            raise MismatchError(f"{where} states {name} {shown(value)}, which no adapter has", _CORRECT)
        yield Said(value, f"{where} ({name})")


_CORRECT = "Correct it, or remove the file."

_LARGEST = 1 << 24
"""No rank and no alpha is as large."""


def _agreed(what: str, said: Sequence[Said]) -> Said | None:
    """The one number that all say."""
    if len({one.value for one in said}) > 1:
        listed = " and ".join(f"{one.where} {one.value:g}" for one in said)
        raise MismatchError(f"the adapter's {what} is stated differently: {listed}", "Correct what is wrong.")
    return said[0] if said else None


def _topk(said: Stated) -> int:
    """Experts per token, by which normalize_moe_lora divides."""
    topk = _count(said.values.get("moe_router_topk"))
    if not topk:
        raise MismatchError(
            f"{said.where} states normalize_moe_lora, and not moe_router_topk, by which it divided the rank", _CORRECT
        )
    return topk


def _shares(peft: Mapping[str, Any]) -> bool:
    """Whether Megatron-Bridge gives all experts of a layer one adapter: as it does unless it is told otherwise."""
    return peft.get("share_expert_adapters", True) is True and peft.get("experts_shared_outer_loras") is not True


def _count(value: object) -> int:
    return value if type(value) is int and 0 < value < 1 << 20 else 0
