"""Makes the checkpoints: a Hugging Face directory of random weights, and torch_dist of the same.

The latter by megatron-core at TP2 x PP2 where it is installed, else by vlconv itself, which is said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from vlconv.converters.formats.safetensors import plan_hf

from . import checkout, geometry, machine, process

SHARD = 5_000_000_000
"""Bytes of a safetensors file, as on the Hub."""

BLOCK = 64 << 20
"""Bytes of random weights; every tensor begins somewhere in them."""


class Made(NamedTuple):
    """One model in both forms."""

    config: geometry.Config
    hf: Path
    mcore: Path  # holds .metadata
    nbytes: int
    written_by: str


def make(folder: Path, config: geometry.Config, megatron: bool = True) -> Made:
    """Make both in a folder of their own, and bring them to the disk.

    Args:
        folder: to make.
        config: of the model.
        megatron: megatron-core writes torch_dist, if it can.
    """
    hf, mcore = folder / "huggingface", folder / "mcore"
    make_hf(hf, config)
    if megatron and able(geometry.nbytes(config)):
        written_by = _by_megatron_core(hf, mcore, config)
    else:
        process.measure(checkout.vlconv("hf2mcore", "--quiet", hf, mcore))
        written_by = "vlconv hf2mcore"
    os.sync()
    return Made(config, hf, holder(mcore), geometry.nbytes(config), written_by)


def able(nbytes: int) -> bool:
    """Whether megatron-core can write a model here: its ranks hold all of it, and more while they write."""
    found = all(map(find_spec, ("megatron", "psutil", "safetensors", "torch"))) and find_spec("megatron.core")
    return bool(found) and 1.5 * nbytes + 3e9 < machine.available_memory()


def _by_megatron_core(hf: Path, mcore: Path, config: geometry.Config) -> str:
    """Returns who wrote it."""
    sizes = {"tp": 2, "pp": 1 + (config["text_config"]["num_hidden_layers"] % 2 == 0)}
    if "num_experts" in config["text_config"]:
        sizes |= {"ep": 2, "etp": 1}
    mcore.mkdir()
    process.measure(checkout.module("bench.by_megatron_core", hf, mcore, json.dumps(sizes)))
    spread = " x ".join(f"{name.upper()}{size}" for name, size in sizes.items())
    return f"megatron-core {version('megatron-core')} at {spread}"


def holder(directory: Path) -> Path:
    """The directory that holds .metadata, in or below one."""
    return next(Path(folder) for folder, _, names in os.walk(directory) if ".metadata" in names)


def files(directory: Path) -> list[Path]:
    """Every file in and below a directory."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(directory) for name in names)


def size(directory: Path) -> int:
    """Bytes of all of them."""
    return sum(path.lstat().st_size for path in files(directory))


def make_hf(directory: Path, config: geometry.Config) -> None:
    """A Hugging Face directory of finite random bfloat16 weights."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    random = np.random.default_rng(0)
    # The sign and the exponent's lower bits with the mantissa: any number smaller than two.
    block = (random.integers(0, 1 << 16, BLOCK // 2, np.uint16) & 0xBFFF).tobytes()
    for file in plan_hf(geometry.specs(config), SHARD):
        with (directory / file.name).open("wb") as out:
            for offset, data in file.literals:
                out.seek(offset)
                out.write(data)
            for box, offset in file.pieces:
                out.seek(offset)
                _fill(out, block, int(random.integers(BLOCK // 2)), 2 * box.size)


def _fill(out: BinaryIO, block: bytes, first: int, nbytes: int) -> None:
    """Write so many bytes of the block, from some number on and round and round."""
    view, at = memoryview(block), 2 * first
    while nbytes:
        written = out.write(view[at : at + min(nbytes, 1 << 20)])
        nbytes, at = nbytes - written, (at + written) % len(block)


def many(directories: list[Path]) -> Iterator[Path]:
    """The files of several."""
    return chain.from_iterable(map(files, directories))
