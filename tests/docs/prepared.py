"""What lies in a reader's folder before the first command of a page: tiny checkpoints as each trainer leaves them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from adapters_of_peft import linear, save_adapter
from fp8 import fine_grained, quantised_model, write_fp8
from lora import names
from lora.making import RANK, make
from lora.saved import base, with_reference, written
from tiny import tiny_config, write_tiny_hf
from trainers.places import namespace, saved_names, write
from trainers.ranks import Grid, write_ranks
from trainers.saving import save

VL, VL_MOE, TEXT = "Qwen3-VL-8B-Instruct", "Qwen3-VL-30B-A3B-Instruct", "Qwen3-8B"
KINDS = {VL: "qwen3_vl", VL_MOE: "qwen3_vl_moe", TEXT: "qwen3"}


def official(folder: Path, release: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A release's directory, of tiny geometry; its config and its tensors."""
    config = tiny_config(KINDS[release])
    return config, write_tiny_hf(folder / release, config, delta_dtype="bfloat16")


def without_weights(folder: Path, release: str, target: Path) -> None:
    """The files beside the weights, as trainers copy them."""
    target.mkdir(parents=True)
    for path in (folder / release).iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).write_bytes(path.read_bytes())


def verl(folder: Path) -> None:
    config, hf = official(folder, VL)
    actor = folder / "checkpoints" / "global_step_100" / "actor"
    save(actor / "dist_ckpt", saved_names("mbridge", config, hf))
    without_weights(folder, VL, actor / "huggingface")


def lora(folder: Path) -> None:
    made, theirs = (
        make("qwen3_vl", name, lambda m: "decoder" in m and "vision" not in m) for name in ("mbridge", "ms-swift")
    )
    base(folder / VL, made)
    written(folder / "adapter", made, names.bridge(made), dim=RANK, alpha=8)
    with_reference(
        written(folder / "output", theirs, names.swift(theirs) | names.wrapped(theirs, "base_layer")), theirs
    )
    (folder / "output" / "iter_0000007").rename(folder / "output" / "iter_0000100")


def areal(folder: Path) -> None:
    config, hf = official(folder, VL)
    save(folder / "checkpoint", saved_names("mbridge", config, hf))


def megatron_bridge(folder: Path) -> None:
    config, hf = official(folder, VL)
    for number in (500, 1000):
        save(folder / "checkpoints" / f"iter_{number:07d}", saved_names("mbridge", config, hf))
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("1000")


def megatron_lm(folder: Path) -> None:
    config, hf = official(folder, TEXT)
    write(folder / "checkpoints", "megatron-lm", config, hf, by="Megatron-LM")
    write_ranks(folder / "old", "megatron-lm", config, hf, Grid([[2, 2]], tp=2), common=namespace(config))


def ms_swift(folder: Path) -> None:
    write(folder / "output", "ms-swift", *official(folder, VL))


def slime(folder: Path) -> None:
    config, hf = official(folder, TEXT)
    save(folder / "checkpoints" / "iter_0000003", saved_names("megatron-lm", config, hf), namespace(config))
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")


def roll(folder: Path) -> None:
    write(folder / "output", "roll", *official(folder, VL))


def pai(folder: Path) -> None:
    config, hf = official(folder, VL)
    write(folder / "checkpoints", "pai", config, hf, common=namespace(config))


def mindspeed_mm(folder: Path) -> None:
    write_ranks(folder / "checkpoints", "mindspeed-mm", *official(folder, VL), Grid([[2, 2]], tp=2))


def fsdp2(folder: Path) -> None:
    write(folder / "checkpoints", "hf", *official(folder, VL))


def python(folder: Path) -> None:
    verl(folder)
    (folder / "checkpoints").rename(folder / "run")
    megatron_bridge(folder)


def inside_a_trainer(folder: Path) -> None:
    for release in KINDS:
        official(folder, release)
    shutil.copytree(Path(__file__).parent / "stubs", folder, dirs_exist_ok=True)


def faults(folder: Path) -> None:
    official(folder, VL)


def forward(folder: Path) -> None:
    config, hf = official(folder, VL)
    save(folder / "checkpoints" / "iter_0001000", saved_names("mbridge", config, hf))
    without_weights(folder, VL, folder / "checkpoints" / "huggingface")


def fp8(folder: Path) -> None:
    config, hf = official(folder, VL)
    stated = fine_grained((32, 16), ["lm_head", "model.visual"])
    write_fp8(folder / f"{VL}-FP8", config, quantised_model(hf, stated, torch.bfloat16), stated)
    save(folder / "checkpoints" / "iter_0001000", saved_names("mbridge", config, hf))
    without_weights(folder, VL, folder / "checkpoints" / "huggingface")


def readme(folder: Path) -> None:
    fp8(folder)
    made = make("qwen3_vl", "mbridge", lambda module: module.startswith("language_model."))
    written(folder / "adapter", made, names.bridge(made), dim=RANK, alpha=16)
    save_adapter(folder / VL, folder / "my-adapter", **linear("q_proj", "v_proj", "o_proj"))


def to_megatron(folder: Path) -> None:
    official(folder, VL)
    (folder / VL).rename(folder / "Qwen3-VL-2B-Instruct")


def lora_peft(folder: Path) -> None:
    made = make("qwen3_vl", "mbridge", lambda module: module.startswith("language_model."))
    base(folder / VL, made)
    written(folder / "checkpoints", made, names.bridge(made), dim=RANK, alpha=16)
    (folder / "checkpoints" / "iter_0000007").rename(folder / "checkpoints" / "iter_0000100")
    save_adapter(folder / VL, folder / "my-adapter", **linear("q_proj", "v_proj", "o_proj"))


TRAINERS = {
    "areal": areal,
    "fsdp2": fsdp2,
    "megatron-bridge": megatron_bridge,
    "megatron-lm": megatron_lm,
    "mindspeed-mm": mindspeed_mm,
    "ms-swift": ms_swift,
    "pai": pai,
    "roll": roll,
    "slime": slime,
    "verl": verl,
}
"""By the name of the page in docs/trainers."""
