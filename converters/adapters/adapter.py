"""What an adapter is, wherever it was read: low-rank changes of Hugging Face weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..tensors.spec import Box, Reader


class Pair(NamedTuple):
    """A change of one weight: W + alpha / rank * B @ A.

    Attributes:
        module: the Hugging Face module, each expert's projections modules of their own, without `.weight`:
            "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.experts.3.gate_proj".
        weight: the box of the Hub's tensor that changes: all of it; of packed experts one expert's part; or some of its
            rows, as those of q alone in a vision tower's `attn.qkv`: then several pairs have one module.
        transpose: the Hub holds that box as [in, out].
        a, b: names in the adapter's reader: [rank, in] and [out, rank].
        rank: r.
        alpha: before it is divided by the rank.
    """

    module: str
    weight: Box
    transpose: bool
    a: str
    b: str
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """What B @ A is multiplied by."""
        return self.alpha / self.rank


class Kind(NamedTuple):
    """What an adapter is by the names of its tensors.

    Attributes:
        family: whose names they are: "megatron-bridge", "ms-swift" or "peft".
        title: the same in a sentence.
        modules: how many have one, as the files count them.
        targets: what these are called: "linear_qkv", "linear_fc1 (gate)", "q_proj".
    """

    family: str
    title: str
    modules: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Adapter:
    """All of one adapter.

    Attributes:
        reader: A and B of every pair.
        pairs: by module, in the model's order; no two change the same elements.
        said: where rank and alpha come from, in words.
    """

    reader: Reader
    pairs: tuple[Pair, ...]
    said: str

    @property
    def changes(self) -> tuple[str, ...]:
        """The Hub's tensors that it changes, in the model's order."""
        return tuple(dict.fromkeys(pair.weight.name for pair in self.pairs))
