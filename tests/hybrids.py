"""Tiny hybrid models on disk: as the Hub has them, as a trainer saves them, and what a config.json promises of a head.

The names and shapes are those of tests/trainers/hub, written apart from vlconv's tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tiny import tiny_config, tiny_weights, write_side_files, write_weights
from trainers.hub import mtp, shapes
from trainers.places import TRAINERS, saved_names
from trainers.ranks import Grid, write_ranks
from trainers.saving import save
from trainers.sizes import sizes

Tensors = dict[str, Any]
FIELD = "mtp_num_hidden_layers"


class Model(NamedTuple):
    """A Hugging Face directory."""

    directory: Path
    config: dict[str, Any]
    tensors: Tensors


def model(
    directory: Path,
    kind: str,
    *,
    head: bool = True,
    promised: int | None = 1,
    packed: bool = False,
    seed: int = 0,
    shards: int = 1,
    weights: bool = True,
    delta_dtype: str = "bfloat16",
    **changes: Any,
) -> Model:
    """A tiny model of a kind.

    Args:
        directory: a new folder.
        kind: model_type.
        head: whether the weights have a multi-token-prediction head.
        promised: how many layers of it config.json promises; None: no word of it.
        packed: its experts are in two tensors, as in Qwen3.6.
        seed: other numbers.
        shards: files.
        weights: False: config and side files alone, as a trainer leaves them; the tensors are given all the same.
        delta_dtype: of A_log and linear_attn.norm.weight: a trainer's parameters' dtype.
        changes: fields of config.json, as tiny_config takes them.
    """
    config = tiny_config(kind, **{**changes, "text": {FIELD: promised, **changes.get("text", {})}})
    tensors = tiny_weights(names_and_shapes(config, head=head, packed=packed), seed, delta_dtype=delta_dtype)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_side_files(directory, config)
    if weights:
        write_weights(directory, tensors, shards)
    return Model(directory, config, tensors)


def names_and_shapes(config: dict[str, Any], *, head: bool, packed: bool = False) -> dict[str, tuple[int, ...]]:
    """Every tensor of a release, whatever config.json says of a head."""
    text = config.get("text_config", config)
    rest = {name: shape for name, shape in shapes(config).items() if not name.startswith("mtp.")}
    return rest | (mtp(sizes(config), text, packed) if head else {})


def saved(
    root: Path,
    name: str,
    of: Model,
    *,
    legacy: bool = False,
    inside: str = "transformer_layer",
    edit: Callable[[Tensors], Tensors] = dict,
) -> Path:
    """A checkpoint as the trainer of a layout saves it, with no word of itself; the folder to convert.

    Args:
        root: a new folder.
        name: of the layout.
        of: whose tensors.
        legacy: rank files of two tensor-parallel ranks; else torch_dist.
        inside: what the layer inside the multi-token-prediction head is called.
        edit: what is done to the tensors of a torch_dist checkpoint before they are saved.
    """
    if legacy:
        root.mkdir(parents=True)
        return write_ranks(root, name, of.config, of.tensors, Grid([[of_layers(of)]], tp=2), mtp_module=inside)
    tensors = saved_names(name, of.config, of.tensors)
    named = {n.replace(".transformer_layer.", f".{inside}."): t for n, t in tensors.items()}
    return save(root / TRAINERS[name].folder, edit(named), plain=TRAINERS[name].plain)


def of_layers(of: Model) -> int:
    """How many layers its language model has."""
    return int(of.config.get("text_config", of.config)["num_hidden_layers"])


def promised(config: dict[str, Any]) -> set[int]:
    """What a config.json says of a head, wherever it does."""
    text = config.get("text_config", {})
    return {section[FIELD] for section in (config, text) if section.get(FIELD) is not None}


def head_names(config: dict[str, Any], *, packed: bool = False) -> set[str]:
    """The names of a head of one layer: 15 of a dense model; with experts, three for each of them or two for all."""
    text = config.get("text_config", config)
    names = {"fc.weight", "norm.weight", "pre_fc_norm_embedding.weight", "pre_fc_norm_hidden.weight"}
    layer = {f"{norm}_layernorm.weight" for norm in ("input", "post_attention")}
    layer |= {f"self_attn.{part}.weight" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")}
    matrices = [f"{part}_proj.weight" for part in ("gate", "up", "down")]
    if "num_experts" not in text:
        layer |= {f"mlp.{matrix}" for matrix in matrices}
    else:
        layer |= {"mlp.gate.weight", "mlp.shared_expert_gate.weight"}
        layer |= {f"mlp.shared_expert.{matrix}" for matrix in matrices}
        each = {f"mlp.experts.{e}.{matrix}" for e in range(text["num_experts"]) for matrix in matrices}
        layer |= {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"} if packed else each
    return {f"mtp.{name}" for name in names | {f"layers.0.{name}" for name in layer}}
