"""The known faults, each with its name. A new one is a line here; one of a new kind is a file beside this one, too."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial

from ...models import model_of
from ...models.shared.config import ModelConfig
from ...tensors.rules import Copy, transposed
from ...tensors.spec import Shape
from . import experts, places
from .fault import Fault, Group
from .fused import FLAT, RANKS, pairs, taken_for
from .places import Places

TP = tuple(f"tp{n}" for n in RANKS)

FUSED: tuple[tuple[str, str, Places, tuple[str, ...], str], ...] = (
    ("qkv", "q, k and v", places.attention, (FLAT, "groups", "core", *TP), "query group"),
    ("vision-qkv", "the vision tower's q, k and v", places.vision_qkv, (FLAT, "groups", *TP), "head"),
    ("gate-up", "gate and up", places.mlp, (FLAT, "swapped", *TP), ""),
    ("vision-gate-up", "the vision tower's gate and up", places.vision_mlp, (FLAT, "swapped", *TP), ""),
    ("gdn", "the projections of a Gated DeltaNet", places.delta_net, (FLAT, "groups", *TP), "key head"),
    ("gdn-qkv", "q, k and v of a Gated DeltaNet", places.delta_net_qkv, (FLAT, "groups", *TP), "key head"),
    ("gdn-conv", "the convolution of a Gated DeltaNet", places.convolution, (FLAT, "groups", *TP), "key head"),
)
"""Name, in words, where they are, the orders that rows may be in, what they are interleaved by."""

KNOWN_OF = {
    "vision-qkv-tp*-as-flat": "Pai-Megatron-Patch's export of Qwen3-VL (its issue 723)",
    "gdn-tp*-as-flat": "Megatron-Bridge's export of Qwen3-Next (its issues 1690, 2013)",
    "gdn-qkv-tp*-as-flat": "Megatron-Bridge's export of Qwen3-Next (its issues 1690, 2013)",
    "gdn-conv-tp*-as-flat": "Megatron-Bridge's export of Qwen3-Next (its issues 1690, 2013)",
}
"""Whose faults have been reported, by their names."""


def _order(name: str, by: str) -> str:
    words = {
        FLAT: "one part behind the other",
        "groups": f"{by} by {by}",
        "core": "query group by query group with queries and gates apart (Megatron-core's order)",
        "swapped": "the second part before the first",
    }
    return words.get(name) or f"those of each of {name.removeprefix('tp')} tensor-parallel ranks, rank after rank"


def _fused(config: ModelConfig, of: Places, true: str, false: str) -> Iterator[Group]:
    for fused in of(config):
        if group := taken_for(fused, true, false):
            yield group


def _square(config: ModelConfig) -> Iterator[Group]:
    """Matrices with as many rows as columns: that they are transposed shows in no shape."""
    for name, shape in model_of(config).hf_tensors(config).items():
        if len(shape) == 2 and shape[0] == shape[1]:
            yield Group((name,), partial(_turned, name, shape))


def _turned(name: str, shape: Shape) -> list[Copy]:
    return list(transposed(name, name, shape))


def _all() -> Iterator[Fault]:
    for kind, words, of, orders, by in FUSED:
        for true, false in pairs(orders):
            if "swapped" in (true, false) and (true, false) != ("swapped", FLAT):
                continue
            name = f"{kind}-swapped" if true == "swapped" else f"{kind}-{true}-as-{false}"
            says = f"{words}: the rows were {_order(true, by)}, and were taken for {_order(false, by)}"
            if true == "swapped":
                says = f"{words} are exchanged"
            elif kind == "qkv" and {true, false} == {"core", "groups"}:
                says = _gated(true)
            yield Fault(name, says, partial(_fused, of=of, true=true, false=false))
    yield from _of_experts()
    yield Fault("transposed", "a square matrix is transposed", _square)


def _gated(true: str) -> str:
    trainers = ("Megatron-core's", "ms-swift's") if true == "core" else ("ms-swift's", "Megatron-core's")
    return f"gated attention: rows in {trainers[0]} order were taken for {trainers[1]}"


def _of_experts() -> Iterator[Fault]:
    yield Fault("experts-swapped", "gate and up of every expert are exchanged", partial(experts.halves, 0))
    for ranks in RANKS:
        says = f"gate and up of every expert: {_order(f'tp{ranks}', '')}, and were taken for one behind the other"
        yield Fault(f"experts-tp{ranks}-as-flat", says, partial(experts.halves, ranks))
    for ranks in RANKS:
        yield Fault(
            f"experts-dealt-{ranks}",
            f"experts are in another order: every {ranks}th one, as if dealt out among {ranks} ranks in turn",
            partial(experts.in_order, partial(experts.dealt, ranks)),
        )
        yield Fault(
            f"experts-gathered-{ranks}",
            f"experts are in another order: the first of each of {ranks} ranks, then the second of each",
            partial(experts.in_order, partial(experts.gathered, ranks)),
        )
    yield Fault(
        "experts-as-text",
        "experts are in another order: sorted by their numbers as text (0, 1, 10, 11, 2)",
        partial(experts.in_order, experts.as_text),
    )
    yield Fault("experts-untransposed", "experts' matrices were not transposed, only reshaped", experts.turned)


def _known_of(name: str) -> str:
    return next((whose for names, whose in KNOWN_OF.items() if fnmatchcase(name, names)), "")


FAULTS: dict[str, Fault] = {fault.name: fault._replace(known_of=_known_of(fault.name)) for fault in _all()}
"""By the name that `repair --undo` takes."""
