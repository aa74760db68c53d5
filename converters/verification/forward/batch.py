"""What every model is run on: a batch of text and one with two images, always the same, made of numbers.

No tokenizer and no image processor is asked: token ids and patches are drawn here, from the bits of a generator that
is the same in every version of numpy and on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ...config.hf_config import text_section
from ...models.shared.config import ModelConfig

if TYPE_CHECKING:
    from ...tensors.spec import Array

LENGTH = 48
"""Tokens of a text."""

AROUND = 8
"""Tokens before an image and after it."""

GRIDS = ((1, 6, 10), (1, 10, 6))
"""Of the images: times, rows and columns, in patches that are merged already."""

SEQUENCES = len(GRIDS)

WITH_IMAGE = 2 * AROUND + 2 + max(map(prod, GRIDS))
"""Tokens of a sequence with an image, at most."""

SEED = 20

FEWEST = 16
"""Token ids below the special ones that are enough to write a text of."""

MARKS = ("vision_start_token_id", "image_token_id")
"""What must stand before an image, and for a piece of it: models ask for both."""

END = "vision_end_token_id"
"""What stands behind an image, for which no model asks."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What is put into a model.

    Attributes:
        text: token ids, int64 [SEQUENCES, LENGTH].
        images: token ids of two sequences of text, an image and text, int64 [SEQUENCES, length]; None: no tower.
        image_id: the token that stands for a piece of an image.
        pixels: patches of both images one behind the other, float32 [patches, values of one].
        grids: times, rows and columns of each image in patches, int64 [SEQUENCES, 3].
    """

    text: Array
    images: Array | None = None
    image_id: int = -1
    pixels: Array | None = None
    grids: Array | None = None

    def save(self, path: Path) -> None:
        """As one .npz file."""
        import numpy as np

        with_images = {} if self.images is None else {n: getattr(self, n) for n in ("images", "pixels", "grids")}
        np.savez(path, text=self.text, image_id=np.array(self.image_id), **with_images)


def batch_for(*models: tuple[ModelConfig, Mapping[str, Any]]) -> Batch:
    """The batch that these models can all take.

    Args:
        models: the integers of each and its config.json, which names the special tokens. Without a tower, or where
            they do not take the same images, the batch is of text alone.
    """
    import numpy as np

    special = set[int]().union(*(special_ids(hf_config) for _, hf_config in models))
    words = _Words(min(config.text.vocab for config, _ in models), special)
    text = np.stack([words.draw(LENGTH) for _ in range(SEQUENCES)])
    taken, *others = {images_taken(*model) for model in models}
    if taken is None or others:
        return Batch(text)
    start, image, merge, values = taken
    ends = [end for config, hf_config in models if _is_token(end := hf_config.get(END), config) and end not in taken]
    rows = []
    for grid in GRIDS:
        around = words.draw(2 * AROUND)
        rows.append([*around[:AROUND], start, *[image] * prod(grid), *ends[:1], *around[AROUND:]])
    grids = np.array([(t, h * merge, w * merge) for t, h, w in GRIDS], np.int64)
    shape = int(grids.prod(axis=1).sum()), values
    bits = np.random.PCG64(SEED + 1).random_raw(prod(shape))
    pixels = ((bits >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - 1).reshape(shape)
    return Batch(text, np.array(rows, np.int64), image, pixels, grids)


def images_taken(config: ModelConfig, hf_config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """How images are put in: the ids of MARKS, how many patches are merged in a row, values of a patch; None: not."""
    marks = [mark for name in MARKS if _is_token(mark := hf_config.get(name), config)]
    tower = config.vision
    if tower is None or len({*marks}) != len(MARKS):
        return None
    return (*marks, tower.merge, tower.channels * tower.temporal_patch * tower.patch**2)


def _is_token(found: object, config: ModelConfig) -> TypeGuard[int]:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < config.text.vocab


def special_ids(hf_config: Mapping[str, Any]) -> set[int]:
    """Every token id that a config.json names."""
    found: set[int] = set()
    for section in (hf_config, text_section(hf_config)[0]):
        for name, value in section.items():
            if name.endswith("_token_id"):
                found.update(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
    return found


class _Words:
    """Ordinary token ids: those below all special ones; where those are too few all that are not special, or all."""

    def __init__(self, vocab: int, special: set[int]) -> None:
        import numpy as np

        below = min([vocab, *special])
        usable = range(below) if below >= FEWEST else sorted({*range(vocab)} - special) or range(vocab)
        self._usable = np.array(usable, np.int64)
        self._bits = np.random.PCG64(SEED)

    def draw(self, count: int) -> Array:
        """That many, int64."""
        drawn: Array = self._usable[(self._bits.random_raw(count) % len(self._usable)).astype("int64")]
        return drawn
