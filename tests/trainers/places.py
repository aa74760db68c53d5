"""Where each trainer puts a checkpoint, what it writes beside it, and which of its lists it stacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import hf_towers
from .decoder import Tensors
from .hf_towers import fsdp2, fsdp2_old, megatron_bridge_0_3, megatron_bridge_qwen2_5, ms_swift, roll
from .mcore_towers import mbridge, mbridge_qwen2_5, pai
from .mindspeed import canonical, mindspeed
from .saving import padded, save, stacked
from .sizes import Sizes, sizes
from .statements import arguments, namespace, nothing, roll_files, swift_files, tracked
from .text_only import fsdp2_text, language_model, megatron_lm, ms_swift_text, slime_text

__all__ = [
    "MEGATRON",
    "PLACES",
    "TRAINERS",
    "Place",
    "Trainer",
    "arguments",
    "namespace",
    "saved_names",
    "stacks",
    "write",
]

TEXT, VISION, DEEPSTACK = (
    "language_model.decoder.layers",
    "vision_model.decoder.layers",
    "vision_model.decoder.deepstack_merger_list",
)
BARE = "decoder.layers"
QWEN3, QWEN2_5, QWEN3_5 = ("qwen3_vl", "qwen3_vl_moe"), ("qwen2_5_vl",), ("qwen3_5", "qwen3_5_moe")
HYBRID = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
TEXT_ONLY = ("qwen2", "qwen3", "qwen3_moe", *HYBRID)


class Trainer(NamedTuple):
    """One trainer's habits."""

    names: Callable[[Sizes, Tensors], Tensors]
    kinds: tuple[str, ...]
    stacks: tuple[str, ...]  # of a dense model; a hybrid one's decoder is never stacked: see `stacks`
    stacks_moe: tuple[str, ...]
    folder: str  # below the root
    root_files: Callable[[dict[str, Any]], dict[str, str]]  # beside `huggingface/`
    beside: str = "huggingface"
    plain: bool = False  # torch's own distributed checkpoint, without Megatron's two files


class Place(NamedTuple):
    """Where one of several trainers that give the same names puts a checkpoint."""

    folder: str
    root_files: Callable[[dict[str, Any]], dict[str, str]]
    args: bool = False  # it has Megatron's arguments in common.pt


def write(
    root: Path,
    name: str,
    config: dict[str, Any],
    hf: Tensors,
    wrapper: str = "",
    rows: int = 0,
    common: Any = None,
    by: str = "",
) -> Path:
    """A checkpoint as the trainer of that layout saves it.

    Args:
        root: a new folder.
        name: of the layout.
        config: config.json.
        hf: Hugging Face tensors under the Hub's names.
        wrapper: put before every name.
        rows: of embedding and output layer; 0: as many as the vocabulary has.
        common: content of common.pt.
        by: one of PLACES[name]; "": where most put it.

    Returns:
        the folder of the checkpoint itself, somewhere below `root`.
    """
    trainer = TRAINERS[name]
    at = PLACES[name][by] if by else Place(trainer.folder, trainer.root_files)
    tensors, stated = saved_names(name, config, hf), namespace(config) if at.args and common is None else common
    place = save(root / at.folder, padded(tensors, rows) if rows else tensors, stated, wrapper, plain=trainer.plain)
    for file, text in at.root_files(config).items():
        (root / file).write_text(text)
    return place


def saved_names(name: str, config: dict[str, Any], hf: Tensors) -> Tensors:
    """The tensors as the trainer's torch_dist checkpoint keys them."""
    s = sizes(config)
    return stacked(TRAINERS[name].names(s, hf), *stacks(name, s))


def stacks(name: str, s: Sizes) -> tuple[str, ...]:
    """The lists that the trainer stacks: layers that differ it cannot."""
    lists = TRAINERS[name].stacks_moe if s.experts else TRAINERS[name].stacks
    return tuple(at for at in lists if not s.delta or at not in (TEXT, BARE))


TRAINERS = {
    "mbridge": Trainer(
        mbridge,
        (*QWEN3, *QWEN3_5),
        (TEXT, VISION, DEEPSTACK),
        (TEXT, VISION, DEEPSTACK),
        "iter_0000007",
        tracked("7"),
    ),
    "megatron-bridge-0.3": Trainer(megatron_bridge_0_3, QWEN3, (TEXT,), (TEXT,), "iter_0000010", tracked("10")),
    "megatron-bridge-qwen2_5": Trainer(megatron_bridge_qwen2_5, QWEN2_5, (TEXT,), (), "iter_0000010", tracked("10\n")),
    "mbridge-qwen2_5": Trainer(
        mbridge_qwen2_5, QWEN2_5, (TEXT, VISION), (), "global_step_5/dist_ckpt", nothing, "global_step_5/huggingface"
    ),
    "ms-swift": Trainer(ms_swift, (*QWEN3, *QWEN2_5), (TEXT,), (TEXT,), "iter_0000100", swift_files),
    "pai": Trainer(pai, QWEN3, (TEXT, VISION), (), "release", tracked("release")),
    "roll": Trainer(roll, (*QWEN3, *QWEN2_5, *QWEN3_5), (BARE,), (BARE,), "iter_0000001/dist_model", roll_files),
    "mindspeed-mm": Trainer(mindspeed, (*QWEN3, *QWEN2_5), (), (), "release", tracked("release")),
    "mindspeed-mm-canonical": Trainer(canonical, QWEN2_5, (), (), "release", tracked("release")),
    "hf": Trainer(fsdp2, (*QWEN3, *QWEN2_5, *QWEN3_5), (), (), "global_step_4/actor", nothing, plain=True),
    "hf-old": Trainer(fsdp2_old, QWEN2_5, (), (), "checkpoint", nothing, plain=True),
    "mbridge-qwen3_5": Trainer(
        hf_towers.mbridge_qwen3_5, QWEN3_5, (), (), "global_step_5/dist_ckpt", nothing, "global_step_5/huggingface"
    ),
    "ms-swift-gdn": Trainer(hf_towers.ms_swift_gdn, QWEN3_5, (), (), "iter_0000100", swift_files),
    "ms-swift-gdn-decoupled": Trainer(hf_towers.ms_swift_gdn_decoupled, QWEN3_5, (), (), "iter_0000100", swift_files),
    "ms-swift-hf-gdn": Trainer(hf_towers.ms_swift_hf_gdn, QWEN3_5, (), (), "iter_0000100", swift_files),
    "slime": Trainer(hf_towers.slime, QWEN3_5, (), (), "iter_0000003", tracked("3")),
    "slime-text": Trainer(slime_text, HYBRID, (), (), "iter_0000003", tracked("3")),
    "ms-swift-text": Trainer(ms_swift_text, HYBRID, (), (), "iter_0000100", swift_files),
    "megatron-lm": Trainer(megatron_lm, TEXT_ONLY, (BARE,), (BARE,), "iter_0000020", tracked("20")),
    "language-model": Trainer(
        language_model, (*QWEN3, *QWEN2_5, *QWEN3_5), (TEXT,), (TEXT,), "iter_0000010", tracked("10")
    ),
    "hf-text": Trainer(fsdp2_text, TEXT_ONLY, (), (), "global_step_4/actor", nothing, plain=True),
}
"""Every layout's trainer, with the models that are converted."""

PLACES = {
    "megatron-lm": {
        "Megatron-LM": Place("iter_0000020", tracked("20"), args=True),
        "mbridge": Place("global_step_5/dist_ckpt", nothing),
        "ms-swift": Place("iter_0000100", swift_files),
        "Pai-Megatron-Patch": Place("release", tracked("release"), args=True),
        "ROLL": Place("iter_0000001/dist_model", roll_files),
    }
}
"""Of layouts that several trainers share."""

MEGATRON = [name for name in TRAINERS if not name.startswith("hf")]
"""Those whose language model is Megatron's."""
