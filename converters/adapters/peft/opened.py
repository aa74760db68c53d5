"""The two files of a PEFT directory, opened; and the tensors in them by the module that each is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import MismatchError, NotACheckpoint, UnsupportedError, shown, shown_path
from ...formats import safetensors
from ...formats.chunks import ChunkReader
from ...formats.directory.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ...formats.open_files import children, is_dir, is_file
from ...formats.seen_files import SeenFiles
from ...tensors.dtypes import FLOATS
from ...tensors.spec import TensorSpec
from .stated import Stated, read_stated

BEFORE, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
"""A tensor's name: what it begins and what it ends with."""

PLAIN = "Only plain LoRA is converted."
OTHERS = {
    "lora_embedding_": ("an adapter of the embedding", PLAIN),
    "lora_magnitude_vector": ("DoRA", PLAIN),
    ".modules_to_save": ("a module trained as a whole", PLAIN),
    ".lora_B.bias": ("a bias trained beside the adapter", PLAIN),
    ".base_layer.weight": (
        "a weight of the model itself, which peft saves along where the output layer has an adapter",
        "Save the adapter without it: model.save_pretrained(…, save_embedding_layers=False).",
    ),
}
"""Parts of the names of tensors that are refused by name: what they are, and what to do."""


class Halves(NamedTuple):
    """One lora_A [rank, in] and its lora_B [out, rank], of a module by its path in the model."""

    module: str
    a: TensorSpec
    b: TensorSpec


@dataclass(frozen=True)
class PeftSide:
    """A PEFT directory.

    Attributes:
        directory: where it lies.
        stated: what its config says.
        chunks: its tensors as they are in the file.
        files: all files that were opened.
    """

    directory: Path
    stated: Stated
    chunks: ChunkReader
    files: SeenFiles


def holds(directory: Path) -> bool:
    """Whether a directory looks like one that peft saved."""
    return is_file(directory / ADAPTER_CONFIG)


def open_peft(directory: Path) -> PeftSide:
    """Open a PEFT directory; no tensor is read.

    Raises:
        NotACheckpoint: it is none; says what it is, if that is known.
        CorruptError: a file is damaged.
        UnsupportedError: what it describes is no plain LoRA adapter.
        ReadError: the system does not let a file be read.
    """
    files = SeenFiles()
    with files.noting():
        _refuse_other(directory)
        stated = read_stated(directory)
        chunks = safetensors.open_file(directory / ADAPTER_WEIGHTS)
    return PeftSide(directory, stated, chunks, files)


def _refuse_other(directory: Path) -> None:
    where = shown_path(directory)
    if holds(directory) and is_file(directory / ADAPTER_WEIGHTS):
        return
    if holds(directory):
        pickled = is_file(directory / "adapter_model.bin")
        raise NotACheckpoint(
            f"{where}: {ADAPTER_CONFIG} is there, and {ADAPTER_WEIGHTS} is not" + ", but adapter_model.bin" * pickled,
            "Save the adapter as safetensors: model.save_pretrained(…)." if pickled else "The save is incomplete.",
        )
    inside = [child for child in children(directory) if is_dir(child) and holds(child)]
    if inside:
        named = ", ".join(shown_path(child) for child in inside[:5])
        raise NotACheckpoint(f"{where} holds {len(inside)} adapters in folders of their own", f"Name one: {named}.")
    raise NotACheckpoint(f"{where}: no {ADAPTER_CONFIG}", "Give a directory that peft's save_pretrained wrote.")


def halves_of(side: PeftSide) -> dict[str, Halves]:
    """A and B of every module, by its path in the model.

    Raises:
        MismatchError: one of the two is missing, a tensor is no LoRA's, or is no plain matrix of floats.
        UnsupportedError: a tensor of something else that is trained beside LoRA.
    """
    where = shown_path(side.directory)
    ends: dict[str, dict[str, TensorSpec]] = {A: {}, B: {}}
    for name, spec in side.chunks.specs.items():
        end = next((end for end in ends if name.startswith(BEFORE) and name.endswith(end)), None)
        if end is None:
            _refuse_name(where, name)
            continue
        if spec.dtype not in FLOATS or len(spec.shape) != 2:
            raise MismatchError(
                f"{where}: {shown(name)} is {spec.dtype} {list(spec.shape)}, no matrix of floats",
                "Adapters of convolutions and quantised ones are not converted.",
            )
        ends[end][name.removeprefix(BEFORE).removesuffix(end)] = spec
    alone = ends[A].keys() ^ ends[B].keys()
    if alone:
        raise MismatchError(f"{where}: {shown(min(alone))} has one of lora_A and lora_B", "The save is incomplete.")
    if not ends[A]:
        raise MismatchError(f"{where}: {ADAPTER_WEIGHTS} holds no tensor", "The save is incomplete.")
    return {module: Halves(module, a, ends[B][module]) for module, a in ends[A].items()}


def _refuse_name(where: str, name: str) -> None:
    if known := next((said for part, said in OTHERS.items() if part in name), None):
        what, hint = known
        raise UnsupportedError(f"{where}: {shown(name)} is {what}", hint)
    raise MismatchError(
        f"{where}: {shown(name)} is no name that peft gives a LoRA tensor",
        f"They are {BEFORE}MODULE{A} and {BEFORE}MODULE{B}: save the adapter with peft's save_pretrained.",
    )
