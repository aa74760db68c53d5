"""On a rank: megatron-core writes a checkpoint. Called by `save`."""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from megatron.core import __version__ as release
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.optimizer import make_sharded_optimizer_tensor
from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout
from packaging.version import Version

from vlconv.converters.models.shared.config import ModelConfig

from . import model
from .families import hybrid, text_only
from .fill import fill
from .formulas import Tensors
from .hybrid import args as hybrids
from .topology import Form, Spec, Topology

OBJECT = Version(release) >= Version("0.19")
"""Whether megatron-core's save() puts what is not sharded in an object among the items, and writes no common.pt."""


def write(
    directory: str,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    form: Form,
    spec: Spec,
    grouped: bool,
    padded: bool,
    optimizer: bool,
    iteration: int | None,
    common_object: bool = False,
    integrity: bool = False,
    bare: bool | None = None,
) -> None:
    """Build, fill, save. `iteration` None: nothing of a training run beside the model."""
    chunks = model.build(config, topology, spec, grouped, padded, bare)
    for chunk in chunks:
        fill(chunk, model.place(topology), config, hf)
    flags = metadata(form)
    state: dict[str, Any] = dict(model.sharded(chunks, flags))
    if optimizer:
        state |= {"optimizer": _optimizer(state), "rng_state": _random_state(), "opt_param_scheduler": {"max_lr": 1e-5}}
    if iteration is not None:
        rows = model.vocabulary(config, topology, padded)
        state |= {"args": arguments(config, topology, rows), "checkpoint_version": 3.0, "iteration": iteration}
    if common_object and not OBJECT:
        state = {name: state.pop(name) for name in list(state) if name.startswith("model")} | {
            "common_state": _object({**state, "content_metadata": flags})
        }
    verified = {"verify_integrity": True} if integrity and OBJECT else {}
    dist_checkpointing.save(state, directory, content_metadata=flags, **verified)
    if torch.distributed.get_rank() == 0 and not OBJECT:
        if common_object:
            (Path(directory) / "common.pt").unlink()
        if integrity:
            _write_integrity(Path(directory))


def _write_integrity(directory: Path) -> None:
    """integrity.json as megatron-core 0.19 writes it."""
    sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir()) if path.is_file()}
    document = {"algorithm": "sha256", "files": sums}
    (directory / "integrity.json").write_text(json.dumps(document, indent=2))


def _object(common: dict[str, Any]) -> ShardedObject:
    """What is not sharded, as megatron-core saves it from 0.19 on: the object of rank 0.

    Sharded parts of an optimizer have no place in it.
    """
    plain = {name: value for name, value in common.items() if name not in ("optimizer", "rng_state")}
    return ShardedObject("common_state", plain, (1,), (0,), replica_id=torch.distributed.get_rank())


def write_legacy(
    directory: str,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    spec: Spec,
    grouped: bool,
    padded: bool,
    optimizer: bool,
    iteration: int | None,
    bare: bool | None = None,
) -> None:
    """Build, fill, torch.save this rank's state dict. `iteration` None: the model alone, as ROLL saves."""
    chunks = model.build(config, topology, spec, grouped, padded, bare)
    for chunk in chunks:
        fill(chunk, model.place(topology), config, hf)
    state: dict[str, Any] = {
        name: chunk.state_dict_for_save_checkpoint() for name, chunk in zip(model.names(chunks), chunks, strict=True)
    }
    if iteration is not None:
        state |= {
            "args": arguments(config, topology, model.vocabulary(config, topology, padded)),
            "checkpoint_version": 3.0,
            "iteration": iteration,
        }
    if optimizer:
        averages = [{"exp_avg": torch.full_like(p, 1e-3)} for chunk in chunks for p in chunk.parameters()]
        state |= {
            "optimizer": {"state": averages},
            "opt_param_scheduler": {"max_lr": 1e-5},
            "rng_state": [{"torch_rng_state": torch.get_rng_state()}],
        }
    # Ranks that differ in nothing but the data they see share one file.
    if parallel_state.get_expert_data_parallel_rank() == 0:
        file = Path(directory) / model.legacy_folder(topology) / "model_optim_rng.pt"
        file.parent.mkdir()
        torch.save(state, file)


def metadata(form: Form) -> dict[str, Any]:
    """megatron-core's flags for a key form; they are saved with what is not sharded, and a loader asks for the same
    form.
    """
    flags = {"singleton_local_shards": form == "singleton", "chained_optim_avoid_prefix": True}
    return flags | {"non_homogeneous_layers": True} if form == "per_layer" else flags


def _optimizer(model_state: dict[str, Any]) -> dict[str, Any]:
    """Adam's averages of every parameter, sharded as the parameter is: float32, and no value of the weights."""
    state: dict[str, Any] = {}
    for chunk, entries in model_state.items():
        for name, entry in entries.items():
            if isinstance(entry, ShardedObject):
                continue
            for average in ("exp_avg", "exp_avg_sq"):
                values = torch.full(entry.data.shape, 1e-3)
                state[f"{average}.{chunk}.{name}"] = make_sharded_optimizer_tensor(
                    entry, values, f"optimizer.state.{average}"
                )
    return {"state": state, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.95)}]}


def _random_state() -> ShardedObject:
    """The random number generators of every pipeline and tensor rank, as Megatron-LM keeps them."""
    pp, tp = parallel_state.get_pipeline_model_parallel_rank(), parallel_state.get_tensor_model_parallel_rank()
    shape = (
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_tensor_model_parallel_world_size(),
    )
    state = [{"torch_rng_state": torch.get_rng_state(), "rng_tracker_states": {}}]
    return ShardedObject(
        "rng_state",
        state,
        shape,
        (pp, tp),
        replica_id=parallel_state.get_data_parallel_rank(with_context_parallel=True),
    )


def arguments(config: ModelConfig, topology: Topology, rows: int) -> argparse.Namespace:
    """The part of Megatron-LM's args that describes the model.

    The real ones have several hundred more, of all plain types.
    """
    text = config.text
    return argparse.Namespace(
        num_layers=text.layers,
        hidden_size=text.hidden,
        num_attention_heads=text.heads,
        num_query_groups=text.groups,
        group_query_attention=True,
        kv_channels=text.head_dim,
        ffn_hidden_size=text.ffn,
        vocab_size=text.vocab,
        padded_vocab_size=rows,
        make_vocab_size_divisible_by=128,
        untie_embeddings_and_output_weights=not text.tied,
        num_experts=text.experts or None,
        moe_ffn_hidden_size=text.moe_ffn or None,
        moe_router_topk=2,
        moe_layer_freq=[int(text.is_moe(i)) for i in range(text.layers)] if text.dense_layers else 1,
        rotary_base=5000000,
        mrope_section=None if text_only(config) else [1, 1, 0] if hybrid(config) else [4, 2, 2],
        norm_epsilon=1e-6,
        max_position_embeddings=4096,
        params_dtype=torch.bfloat16,
        tensor_model_parallel_size=topology.tp,
        pipeline_model_parallel_size=topology.pp,
        virtual_pipeline_model_parallel_size=topology.vpp if topology.vpp > 1 else None,
        expert_model_parallel_size=topology.ep,
        expert_tensor_parallel_size=topology.expert_tp,
        decoder_first_pipeline_num_layers=topology.first,
        decoder_last_pipeline_num_layers=topology.last,
        pipeline_model_parallel_layout=PipelineParallelLayerLayout.from_str(topology.layout, topology.pp)
        if topology.layout
        else None,
        world_size=topology.world,
        lr=1e-5,
        load=None,
        bf16=True,
        **(hybrids.arguments(text) if hybrid(config) else {}),
    )
