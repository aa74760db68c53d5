"""Experts in another order, transposed or not, and their gate and up in another order of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod

from ...models import model_of
from ...models.shared.config import ModelConfig, TextConfig
from ...models.shared.experts import Experts, expert_copies, expert_shapes, hf_experts
from ...models.shared.traits import ExpertsOnHub
from ...tensors.joined import joined
from ...tensors.rules import Copy, flipped, rename
from ...tensors.spec import Box, Shape
from .fault import Group

FC1, FC2 = "fc1", "fc2"
PACKED = Experts("packed", FC1, FC2)

LARGEST = 1 << 25
"""Elements of a matrix that is read whole to be turned; releases have up to 13 million."""


def in_order(make: Callable[[int], list[int] | None], config: ModelConfig) -> Iterator[Group]:
    """Experts dealt out in another order: place -> the expert that is there."""
    places = make(config.text.experts) if config.text.experts else None
    if places is not None and places != sorted(places):
        yield from _groups(config, partial(_reordered, places))


def dealt(ranks: int, experts: int) -> list[int] | None:
    """Experts of ranks that have every `ranks`-th one, rank after rank."""
    return [e for rank in range(ranks) for e in range(rank, experts, ranks)] if experts % ranks == 0 else None


def gathered(ranks: int, experts: int) -> list[int] | None:
    """The first expert of every rank, then the second of every rank."""
    each = experts // ranks
    return [e for i in range(each) for e in range(i, experts, each)] if experts % ranks == 0 else None


def as_text(experts: int) -> list[int] | None:
    """Sorted by number as if that were text: 0, 1, 10, 11, 2."""
    return sorted(range(experts), key=str)


def _reordered(places: Sequence[int], c: TextConfig) -> list[Copy]:
    copies = []
    for name, shape in _shapes(c):
        one = (1, *shape[1:])
        copies += [Copy(Box(name, (e, 0, 0), one), Box(name, (at, 0, 0), one)) for at, e in enumerate(places)]
    return copies


def halves(ranks: int, config: ModelConfig) -> Iterator[Group]:
    """Gate and up of each expert: swapped (`ranks` 0), or those of each rank one behind the other."""
    if config.text.experts and (not ranks or config.text.moe_ffn % ranks == 0):
        yield from _groups(config, partial(_halves, ranks), down=False)


def _halves(ranks: int, c: TextConfig) -> list[Copy]:
    m, h = c.moe_ffn, c.hidden
    each = m // (ranks or 1)
    good = [(half * m + rank * each) for rank in range(ranks) for half in (0, 1)] if ranks else [m, 0]
    copies = [
        Copy(Box(FC1, (e, start, 0), (1, each, h)), Box(FC1, (e, at * each, 0), (1, each, h)))
        for e in range(c.experts)
        for at, start in enumerate(good)
    ]
    return copies + list(rename(FC2, FC2, (c.experts, h, m)))


def turned(config: ModelConfig) -> Iterator[Group]:
    """Each expert's matrix written row by row as if it were the transposed one: as it was, in the other's shape."""
    c, form = config.text, model_of(config).traits.experts_on_hub
    if not c.experts or form == "per-expert":
        return
    for stem in _stems(config):
        for name, shape in expert_shapes(hf_experts(stem, form), c).items():
            if prod(shape[1:]) <= LARGEST:
                yield Group((name,), partial(_viewed, name, *shape), shape)


def _viewed(name: str, experts: int, rows: int, columns: int) -> list[Copy]:
    """Good [rows, columns]; written were the elements of its transpose, one after the other, as [rows, columns]."""
    copies = []
    for i in range(rows):
        j = 0
        while j < columns:
            column, row = divmod(i * columns + j, rows)
            run = min(columns - j, rows - row)
            copies.append(((row, column), (i, j), run))
            j += run
    return [
        Copy(Box(name, (e, *good), (1, run, 1)), Box(name, (e, *written), (1, 1, run)), transpose=True)
        for e in range(experts)
        for good, written, run in copies
    ]


def _groups(config: ModelConfig, make: Callable[[TextConfig], list[Copy]], *, down: bool = True) -> Iterator[Group]:
    """Those of all layers, whatever form the Hub has of the experts.

    Args:
        config: the model's integers.
        make: copies among FC1 and FC2 as Megatron packs them.
        down: whether FC2 changes, too.
    """
    form = model_of(config).traits.experts_on_hub
    for stem in _stems(config):
        kept = [n for n in expert_shapes(hf_experts(stem, form), config.text) if down or ".down_proj" not in n]
        yield Group(tuple(kept), partial(_on_hub, stem, form, config.text, make, down))


def _on_hub(
    stem: str, form: ExpertsOnHub, c: TextConfig, make: Callable[[TextConfig], list[Copy]], down: bool
) -> list[Copy]:
    home = list(expert_copies(PACKED, hf_experts(stem, form), c))
    copies = joined(joined(flipped(home), make(c)), home)
    return copies if down else [copy for copy in copies if ".down_proj" not in copy.right.name]


def _shapes(c: TextConfig) -> list[tuple[str, Shape]]:
    return [*expert_shapes(PACKED, c).items()]


def _stems(config: ModelConfig) -> Iterator[str]:
    c = config.text
    yield from (f"{model_of(config).text_prefix}layers.{i}.mlp.experts" for i in range(c.layers) if c.is_moe(i))
