"""Where each trainer puts a checkpoint, what it writes beside it, and which of its lists it stacks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .decoder import Tensors
from .hf_towers import fsdp2, fsdp2_old, megatron_bridge_0_3, megatron_bridge_qwen2_5, ms_swift, roll
from .mcore_towers import mbridge, mbridge_qwen2_5, pai
from .mindspeed import canonical, mindspeed
from .saving import padded, save, stacked
from .sizes import Sizes, sizes

TEXT, VISION, DEEPSTACK = (
    "language_model.decoder.layers",
    "vision_model.decoder.layers",
    "vision_model.decoder.deepstack_merger_list",
)
QWEN3, QWEN2_5 = ("qwen3_vl", "qwen3_vl_moe"), ("qwen2_5_vl",)


class Trainer(NamedTuple):
    """One trainer's habits."""

    names: Callable[[Sizes, Tensors], Tensors]
    kinds: tuple[str, ...]
    stacks: tuple[str, ...]  # of a dense model
    stacks_moe: tuple[str, ...]
    folder: str  # below the root
    root_files: Callable[[dict[str, Any]], dict[str, str]]  # beside `huggingface/`
    beside: str = "huggingface"
    plain: bool = False  # torch's own distributed checkpoint, without Megatron's two files


def write(
    root: Path, name: str, config: dict[str, Any], hf: Tensors, wrapper: str = "", rows: int = 0, common: Any = None
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

    Returns:
        the folder of the checkpoint itself, somewhere below `root`.
    """
    trainer = TRAINERS[name]
    tensors = saved_names(name, config, hf)
    place = save(
        root / trainer.folder, padded(tensors, rows) if rows else tensors, common, wrapper, plain=trainer.plain
    )
    for file, text in trainer.root_files(config).items():
        (root / file).write_text(text)
    return place


def saved_names(name: str, config: dict[str, Any], hf: Tensors) -> Tensors:
    """The tensors as the trainer's torch_dist checkpoint keys them."""
    trainer, s = TRAINERS[name], sizes(config)
    return stacked(trainer.names(s, hf), *(trainer.stacks_moe if s.experts else trainer.stacks))


def tracked(word: str) -> Callable[[dict[str, Any]], dict[str, str]]:
    """A tracker file."""
    return lambda config: {"latest_checkpointed_iteration.txt": word}


def nothing(config: dict[str, Any]) -> dict[str, str]:
    """No file."""
    return {}


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """What a trainer states of the language model, as Megatron's arguments call it."""
    text = config.get("text_config", config)
    found = {
        "num_layers": text["num_hidden_layers"],
        "hidden_size": text["hidden_size"],
        "ffn_hidden_size": text["intermediate_size"],
        "num_attention_heads": text["num_attention_heads"],
        "num_query_groups": text["num_key_value_heads"],
        "rotary_base": text["rope_theta"],
        "num_experts": text.get("num_experts"),
        "untie_embeddings_and_output_weights": not config["tie_word_embeddings"],
        "some_later_option": None,
    }
    if "num_experts" in text:
        found |= {"moe_ffn_hidden_size": text["moe_intermediate_size"], "moe_router_topk": text["num_experts_per_tok"]}
    return found


def namespace(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """common.pt as Megatron-LM writes it."""
    return {"args": argparse.Namespace(**arguments(config), **more), "checkpoint_version": 3.0, "iteration": 1}


def swift_files(config: dict[str, Any]) -> dict[str, str]:
    """ms-swift's tracker and args.json."""
    return {
        "latest_checkpointed_iteration.txt": "100",
        "args.json": json.dumps({"model": "somewhere", **arguments(config)}),
    }


def roll_files(config: dict[str, Any]) -> dict[str, str]:
    """ROLL's mca_config.json, with the words of megatron-core's TransformerConfig."""
    found = arguments(config)
    found["num_moe_experts"] = found.pop("num_experts")
    found["tie_embeddings_and_output_weights"] = not found.pop("untie_embeddings_and_output_weights")
    return {"mca_config.json": json.dumps({"hf_model_type": config["model_type"], **found})}


TRAINERS = {
    "mbridge": Trainer(
        mbridge, QWEN3, (TEXT, VISION, DEEPSTACK), (TEXT, VISION, DEEPSTACK), "iter_0000007", tracked("7")
    ),
    "megatron-bridge-0.3": Trainer(megatron_bridge_0_3, QWEN3, (TEXT,), (TEXT,), "iter_0000010", tracked("10")),
    "megatron-bridge-qwen2_5": Trainer(megatron_bridge_qwen2_5, QWEN2_5, (TEXT,), (), "iter_0000010", tracked("10\n")),
    "mbridge-qwen2_5": Trainer(
        mbridge_qwen2_5, QWEN2_5, (TEXT, VISION), (), "global_step_5/dist_ckpt", nothing, "global_step_5/huggingface"
    ),
    "ms-swift": Trainer(ms_swift, (*QWEN3, *QWEN2_5), (TEXT,), (TEXT,), "iter_0000100", swift_files),
    "pai": Trainer(pai, QWEN3, (TEXT, VISION), (), "release", tracked("release")),
    "roll": Trainer(
        roll, (*QWEN3, *QWEN2_5), ("decoder.layers",), ("decoder.layers",), "iter_0000001/dist_model", roll_files
    ),
    "mindspeed-mm": Trainer(mindspeed, (*QWEN3, *QWEN2_5), (), (), "release", tracked("release")),
    "mindspeed-mm-canonical": Trainer(canonical, QWEN2_5, (), (), "release", tracked("release")),
    "hf": Trainer(fsdp2, (*QWEN3, *QWEN2_5), (), (), "global_step_4/actor", nothing, plain=True),
    "hf-old": Trainer(fsdp2_old, QWEN2_5, (), (), "checkpoint", nothing, plain=True),
}
"""Every layout's trainer."""

MEGATRON = [name for name in TRAINERS if not name.startswith("hf")]
"""Those whose language model is Megatron's."""
