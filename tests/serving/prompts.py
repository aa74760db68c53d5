"""What both libraries are asked: one prompt of text alone, one with two images of different grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .sources import SOURCES

_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass(frozen=True)
class Prompt:
    """A text with a placeholder for each image, of [height, width] pixels each."""

    text: str
    sizes: tuple[tuple[int, int], ...] = ()

    def images(self) -> list[Any]:
        """Noise, as PIL images: the same at each call."""
        import numpy as np
        from PIL import Image

        noise = np.random.default_rng(0)
        return [Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in self.sizes]


def asked(name: str) -> dict[str, Prompt]:
    """The prompts of a source: those with images only where it sees them."""
    return {kind: p for kind, p in PROMPTS.items() if not p.sizes or "vision_config" in SOURCES[name]}


PROMPTS = {
    "text": Prompt("a rather short text, without any image in it"),
    "images": Prompt(f"first {_IMAGE}, then {_IMAGE}: tell them apart", ((24, 40), (48, 16))),
}
