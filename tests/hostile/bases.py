"""The good sources: as megatron-core, torch and safetensors write them, tiny, made once for a session."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import torch
from fp8 import fine_grained, plain_model, quantised_model
from hybrids import model, names_and_shapes, saved
from mcore.fill import whole
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.sharded import save_fsdp, save_plain
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import write_hf, write_reference
from safetensors.torch import save_file
from tiny import tiny_config, tiny_weights, write_weights
from trainers.places import TRAINERS
from trainers.sizes import sizes

from .case import Work
from .files import edit_json

DENSE, MOE, TIED = tiny(), tiny(moe=True), tiny(tied=True)


class Base(NamedTuple):
    """A good source.

    Attributes:
        make: writes it into a folder that does not exist.
        command: that converts it.
        config: of its model.
    """

    make: Callable[[Path], object]
    command: str
    config: object = DENSE


def _dist(folder: Path) -> None:
    write_reference(folder / "huggingface", DENSE)
    save(folder, DENSE, random_hf_tensors(DENSE), Topology(tp=2), iteration=10, padded=True)


def _object(folder: Path) -> None:
    write_reference(folder / "huggingface", DENSE)
    save(
        folder, DENSE, random_hf_tensors(DENSE), Topology(tp=2), iteration=10, optimizer=False, common="object"
    )  # as from megatron-core 0.19 on


def _moe(folder: Path) -> None:
    write_reference(folder / "huggingface", MOE)
    save(folder, MOE, random_hf_tensors(MOE), Topology(tp=2, ep=2, etp=1), iteration=10, optimizer=False)


def _per_layer(folder: Path) -> None:
    write_reference(folder / "huggingface", MOE)
    save(folder, MOE, random_hf_tensors(MOE), Topology(), "per_layer", iteration=10, optimizer=False)


def _legacy(folder: Path) -> None:
    write_reference(folder / "huggingface", DENSE)
    save_legacy(folder, DENSE, random_hf_tensors(DENSE), Topology(tp=2, pp=2))


def _legacy_moe(folder: Path) -> None:
    write_reference(folder / "huggingface", MOE)
    save_legacy(folder, MOE, random_hf_tensors(MOE), Topology(tp=2, ep=2), optimizer=False)


def _fsdp(folder: Path) -> None:
    write_reference(folder / "huggingface", DENSE)
    save_fsdp(folder / "iter_0000005", DENSE, random_hf_tensors(DENSE), "module.")


def _plain(folder: Path) -> None:
    write_reference(folder / "huggingface", DENSE)
    save_plain(folder / "ckpt", random_hf_tensors(DENSE))


FP8 = fine_grained((32, 16), ["lm_head", "model.visual"])
"""quantization_config of the base that is FP8."""


def _fp8(folder: Path) -> None:
    write_hf(folder, DENSE, random_hf_tensors(DENSE), 1)
    write_weights(folder, fp8_tensors())
    edit_json(folder / "config.json", lambda config: config.update(quantization_config=FP8))


def fp8_tensors() -> dict[str, torch.Tensor]:
    """What the base of FP8 holds."""
    return quantised_model(random_hf_tensors(DENSE), FP8)


HYBRID = "qwen3_5_moe"
"""With Gated DeltaNets, experts and a multi-token-prediction head."""


def _hybrid(folder: Path) -> None:
    folder.mkdir()
    of = model(folder / "huggingface", HYBRID, weights=False)
    saved(folder / "saved", "mbridge", of).rename(folder / "iter_0000007")
    (folder / "saved").rmdir()


def hybrid_tensors() -> dict[str, torch.Tensor]:
    """What the base of a hybrid holds."""
    return tiny_weights(names_and_shapes(tiny_config(HYBRID), head=True), delta_dtype="bfloat16")


PEFT = "peft"
"""A PEFT directory, with its base's config beside it."""


def _peft(folder: Path) -> None:
    write_reference(folder / "huggingface", DENSE)
    halves = {f"base_model.model.model.language_model.{n}.lora_{x}.weight": t for (n, x), t in _adapter().items()}
    save_file(halves, folder / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 4.5, "target_modules": ["o_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(stated))


def _adapter() -> dict[tuple[str, str], torch.Tensor]:
    """(module, A or B) -> its numbers."""
    c, generator = DENSE.text, torch.Generator().manual_seed(0)
    widths = {"self_attn.o_proj": c.heads * c.head_dim, "mlp.down_proj": c.ffn}
    shapes = {
        (f"layers.{layer}.{module}", half): shape
        for layer in range(c.layers)
        for module, width in widths.items()
        for half, shape in (("A", (4, width)), ("B", (c.hidden, 4)))
    }
    return {key: torch.randn(shape, generator=generator).bfloat16() for key, shape in shapes.items()}


BASES = {
    "dist": Base(_dist, "mcore2hf"),
    "object": Base(_object, "mcore2hf"),
    "moe": Base(_moe, "mcore2hf", MOE),
    "per_layer": Base(_per_layer, "mcore2hf", MOE),
    "legacy": Base(_legacy, "mcore2hf"),
    "legacy_moe": Base(_legacy_moe, "mcore2hf", MOE),
    "fsdp": Base(_fsdp, "mcore2hf"),
    "plain": Base(_plain, "mcore2hf"),
    "hf": Base(lambda folder: write_hf(folder, DENSE, random_hf_tensors(DENSE), 1), "hf2mcore"),
    "sharded": Base(lambda folder: write_hf(folder, DENSE, random_hf_tensors(DENSE), 3), "hf2mcore"),
    "tied": Base(lambda folder: write_hf(folder, TIED, random_hf_tensors(TIED), 1), "hf2mcore", TIED),
    "hybrid": Base(_hybrid, "mcore2hf"),
    "fp8": Base(_fp8, "hf2mcore"),
    PEFT: Base(_peft, "hf2mcore"),
    "hybrid_hf": Base(lambda folder: model(folder, HYBRID), "hf2mcore"),
}
HYBRIDS = ("hybrid", "hybrid_hf")
APART = (*HYBRIDS, PEFT, "fp8")
"""Bases with cases of their own, which no loop over all bases damages."""
MCORE = tuple(name for name, base in BASES.items() if base.command == "mcore2hf" and name not in APART)
DCP = ("dist", "fsdp", "plain")
HF = tuple(name for name, base in BASES.items() if base.command == "hf2mcore" and name not in APART)


class Bases:
    """All of them in a folder; each made when it is first wanted, by whichever process comes first.

    Args:
        root: shared by every process of the session.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def of(self, name: str) -> Path:
        """The good source of that name; not to be written to."""
        made = self._root / name
        with (self._root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(half := self._root / f"{name}.half", ignore_errors=True)
                BASES[name].make(half)
                half.rename(made)
        return made

    def work(self, name: str, folder: Path) -> Work:
        """A folder for one run, with a copy to damage."""
        work = Work(folder)
        shutil.copytree(self.of(name), work.source)
        for part in (work.target, work.canary, work.temporary):
            part.mkdir()
        (work.canary / "alive").write_text("alive")
        return work


def expected_hf(name: str) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """What mcore2hf must write of a base, from the formulas alone: name -> (dtype, shape, CRC-32)."""
    hf = hybrid_tensors() if name in HYBRIDS else random_hf_tensors(BASES[name].config)  # type: ignore[arg-type]
    return {n: _sum(t) for n, t in hf.items()}


def expected_mcore(name: str) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """What hf2mcore must write of a base, likewise, layers apart."""
    config = BASES[name].config
    if name == PEFT:
        ours = {"self_attn.o_proj": "self_attention.linear_proj", "mlp.down_proj": "mlp.linear_fc2"}
        ends = {"A": "adapter.linear_in.weight", "B": "adapter.linear_out.weight"}
        found = {}
        for (module, half), tensor in _adapter().items():
            layer, _, last = module.removeprefix("layers.").partition(".")
            found[f"language_model.decoder.layers.{layer}.{ours[last]}.{ends[half]}"] = _sum(tensor)
        return found
    if name in HYBRIDS:
        names = TRAINERS["mbridge"].names(sizes(tiny_config(HYBRID)), hybrid_tensors())
        return {n: _sum(t) for n, t in names.items()}
    hf = plain_model(fp8_tensors(), FP8) if name == "fp8" else random_hf_tensors(config)  # type: ignore[arg-type]
    return {n: _sum(t) for n, t in whole(config, hf).items()}  # type: ignore[arg-type]


def found_hf(directory: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """What stands in the safetensors files of a directory, read without vlconv."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        data = path.read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begin])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            found[name] = (entry["dtype"], tuple(entry["shape"]), crc32(data[begin + first : begin + last]))
    return found


def found_mcore(directory: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """What stands in a torch_dist checkpoint, read by torch itself."""
    import dcp

    return {n: _sum(t) for n, t in dcp.unstacked(dcp.load(directory / "release")).items() if "_extra_state" not in n}


_CODES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16"}


def _sum(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], int]:
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return _CODES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), crc32(data)


__all__ = ["BASES", "DCP", "HF", "HYBRIDS", "MCORE", "Base", "Bases", "expected_hf", "expected_mcore", "write_weights"]
