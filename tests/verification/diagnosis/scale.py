"""How long a diagnosis takes, and what memory, where each of very many tensors differs: layers x experts, all tiny.

    python tests/verification/diagnosis/scale.py [--layers 94] [--experts 128] [--profile] [KIND …]

What is not linear in the number of tensors shows in the last column: it is for half of the layers, and is to be near 2.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tiny import tiny_config, tiny_shapes

from vlconv.converters.models import model_for
from vlconv.converters.report import Silent
from vlconv.converters.tensors.spec import Box, TensorSpec
from vlconv.converters.verification.comparison.compare import compare
from vlconv.converters.verification.diagnosis.diagnose import diagnosed
from vlconv.converters.verification.diagnosis.diagnosis import Diagnosis
from vlconv.converters.verification.diagnosis.passes import Passes

Array = np.ndarray[Any, Any]
Numbers = dict[str, Array]


class Held:
    """A Reader of bfloat16 tensors in memory."""

    def __init__(self, numbers: Numbers) -> None:
        self._bits = {name: bfloat16(found) for name, found in numbers.items()}
        self.specs = {name: TensorSpec(name, found.shape, "bfloat16") for name, found in self._bits.items()}

    def read_into(self, box: Box, out: Array) -> None:
        inside = tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))
        out[...] = self._bits[box.name][inside]

    def finish(self) -> None:
        pass


def bfloat16(numbers: Array) -> Array:
    return ((numbers.astype(np.float32).view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def model(layers: int, experts: int) -> tuple[Any, Numbers]:
    text = {"num_hidden_layers": layers, "num_experts": experts, "moe_intermediate_size": 8}
    config, random = tiny_config("qwen3_moe", text=text), np.random.default_rng(1)
    return model_for(config).config(config), {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in tiny_shapes(config).items()
    }


def each(change: Callable[[Array, np.random.Generator], Array]) -> Callable[[Numbers], Numbers]:
    def changed(numbers: Numbers) -> Numbers:
        random = np.random.default_rng(2)
        return {name: change(found, random) for name, found in numbers.items()}

    return changed


def a_layer_late(numbers: Numbers) -> Numbers:
    """Each expert is that of the layer before."""
    moved = dict(numbers)
    for name in numbers:
        if ".experts." in name:
            stem, layer, rest = name.split(".", 3)[0:2], int(name.split(".")[2]), name.split(".", 3)[3]
            moved[name] = numbers[".".join([*stem, str(max(0, layer - 1)), rest])]
    return moved


def as_text(numbers: Numbers) -> Numbers:
    """Experts sorted by their numbers as text."""
    count = 1 + max(int(name.split(".experts.")[1].split(".")[0]) for name in numbers if ".experts." in name)
    order, moved = sorted(map(str, range(count))), dict(numbers)
    for name in numbers:
        stem, found, rest = name.partition(".experts.")
        if found:
            number, _, part = rest.partition(".")
            moved[name] = numbers[f"{stem}.experts.{order[int(number)]}.{part}"]
    return moved


KINDS: Mapping[str, Callable[[Numbers], Numbers]] = {
    "trained": each(lambda found, random: found + 0.02 * random.standard_normal(found.shape)),
    "noise": each(lambda found, random: random.standard_normal(found.shape)),
    "a factor each": each(lambda found, random: found * (2 + random.random())),
    "a layer late": a_layer_late,
    "as text": as_text,
}


def explained(config: Any, a: Held, b: Held, profile: cProfile.Profile | None) -> tuple[float, list[Diagnosis]]:
    """Seconds, and what was found."""
    differences = compare(a, b, 2, Silent()).differences
    begin = time.perf_counter()
    if profile:
        found = profile.runcall(diagnosed, a, b, config, differences, Passes(1))
    else:
        found = diagnosed(a, b, config, differences, Passes(2))
    return time.perf_counter() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=94)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("kinds", nargs="*", default=[*KINDS])
    asked = parser.parse_args()
    for kind in asked.kinds:
        seconds = []
        for layers in (asked.layers // 2, asked.layers):
            config, numbers = model(layers, asked.experts)
            a, b = Held(numbers), Held(KINDS[kind](numbers))
            before, profile = peak(), cProfile.Profile() if asked.profile else None
            took, found = explained(config, a, b, profile)
            seconds.append(took)
        named = sorted({one.name for one in found})
        print(
            f"{kind:14} {len(numbers)} tensors, {took:6.1f} s, {peak() - before:4} MB more at the peak, "
            f"x {seconds[1] / seconds[0]:.1f}: {len(found)} diagnoses, {', '.join(named)}",
            flush=True,
        )
        if profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(30)


def peak() -> int:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
