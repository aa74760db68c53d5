"""A tiny Qwen3-VL out of megatron-core's modules, shaped as mbridge, verl and AReaL shape it.

    language_model   megatron-core's GPTModel
    vision_model     patch_embed.proj, pos_embed, decoder (a TransformerBlock that also owns the deepstack mergers), merger
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.utils import replace_prefix_for_sharding
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import MegatronModule, TransformerConfig
from megatron.core.transformer.transformer_block import TransformerBlock
from vlconv.converters.models.config import ModelConfig, VisionConfig

from . import specs
from .topology import Place, Spec, Topology


class Merger(MegatronModule):
    """patch_norm over one patch or over merge x merge patches side by side, then two linear layers."""

    def __init__(self, config: TransformerConfig, vision: VisionConfig, norm_width: int, modules: tuple[Any, Any, Any]) -> None:
        super().__init__(config)
        norm, column, row = modules
        common: dict[str, Any] = {"config": config, "init_method": config.init_method, "bias": True, "skip_bias_add": False}
        self.patch_norm = norm(config=config, hidden_size=norm_width, eps=config.layernorm_epsilon)
        self.linear_fc1 = column(vision.merged, vision.merged, gather_output=False, **common)
        self.linear_fc2 = row(vision.merged, vision.out_hidden, input_is_parallel=True, **common)


class VisionBlocks(TransformerBlock):
    """The vision blocks, and beside them the deepstack mergers, stacked on an axis of their own in a checkpoint."""

    def __init__(self, config: TransformerConfig, vision: VisionConfig, spec: Spec) -> None:
        super().__init__(config, specs.vision_spec(spec), post_layer_norm=False)
        modules = specs.merger_modules(spec)
        self.deepstack_merger_list = torch.nn.ModuleList(Merger(config, vision, vision.merged, modules) for _ in vision.deepstack)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: Any = None) -> dict[str, Any]:
        """megatron-core's entries for the blocks, and the same form for the mergers.

        The flag for singleton shards makes no per-layer keys here: the trainers' vision block does not look at it.
        """
        metadata = {**metadata, "singleton_local_shards": False}
        mergers = self._modules.pop("deepstack_merger_list")
        entries: dict[str, Any] = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        self._modules["deepstack_merger_list"] = mergers
        for index, merger in enumerate(self.deepstack_merger_list):
            local = f"{prefix}deepstack_merger_list.{index}."
            stacked = not metadata.get("non_homogeneous_layers")
            made = merger.sharded_state_dict(local, ((0, index, len(self.deepstack_merger_list)),) if stacked else (), metadata)
            if stacked:
                replace_prefix_for_sharding(made, local, f"{prefix}deepstack_merger_list.")
            entries |= made
        return entries


class PatchEmbed(torch.nn.Module):
    """Patches to vectors: a convolution as wide as its stride."""

    def __init__(self, vision: VisionConfig, dtype: torch.dtype) -> None:
        super().__init__()
        kernel = vision.patch_shape[2:]
        self.proj = torch.nn.Conv3d(vision.channels, vision.hidden, kernel, stride=kernel, dtype=dtype)


class VisionTower(MegatronModule):
    """The vision tower of the first pipeline stage."""

    def __init__(self, config: TransformerConfig, vision: VisionConfig, spec: Spec) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbed(vision, config.params_dtype)
        self.pos_embed = torch.nn.Embedding(vision.positions, vision.hidden, dtype=config.params_dtype)
        self.decoder = VisionBlocks(config, vision, spec)
        self.merger = Merger(config, vision, vision.hidden, specs.merger_modules(spec))


class Qwen3VL(MegatronModule):
    """One model chunk of one rank."""

    def __init__(self, config: ModelConfig, topology: Topology, spec: Spec, grouped: bool, padded: bool, stage: int | None) -> None:
        language = specs.language_config(config, topology, grouped)
        super().__init__(language)
        first = parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage)
        if first:
            self.vision_model = VisionTower(specs.vision_config(config, topology), config.vision, spec)
        self.language_model = GPTModel(
            language,
            specs.language_spec(language, spec, stage),
            vocab_size=vocabulary(config, topology, padded),
            max_sequence_length=64,
            pre_process=first,
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
            share_embeddings_and_output_weights=config.text.tied,
            position_embedding_type="rope",
            vp_stage=stage,
        )

    def layer_number(self, name: str) -> int:
        """The global number, from 0, of the language layer that a local parameter `….decoder.layers.{local}.…` belongs to, as megatron-core numbers it."""
        local = int(name.split("decoder.layers.")[1].split(".")[0])
        return int(self.language_model.decoder.layers[local].layer_number) - 1


def vocabulary(config: ModelConfig, topology: Topology, padded: bool) -> int:
    """Rows of the embedding: the true vocabulary, or padded as Megatron-LM pads."""
    unit = topology.padding_unit if padded else 1
    return -(-config.text.vocab // unit) * unit


def place(topology: Topology) -> Place:
    """This rank's coordinates, asked of megatron-core."""
    return Place(
        tp=topology.tp,
        tp_rank=parallel_state.get_tensor_model_parallel_rank(),
        ep=topology.ep,
        ep_rank=parallel_state.get_expert_model_parallel_rank(),
        etp=topology.expert_tp,
        etp_rank=parallel_state.get_expert_tensor_parallel_rank(),
    )


def build(config: ModelConfig, topology: Topology, spec: Spec = "te", grouped: bool = False, padded: bool = False) -> list[Qwen3VL]:
    """Initialise megatron-core's groups on this rank and build its model chunks, one for each virtual pipeline stage."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=topology.tp,
        pipeline_model_parallel_size=topology.pp,
        virtual_pipeline_model_parallel_size=topology.vpp if topology.vpp > 1 else None,
        expert_model_parallel_size=topology.ep,
        expert_tensor_parallel_size=topology.expert_tp,
        create_gloo_process_groups=False,
    )
    stages = list(range(topology.vpp)) if topology.vpp > 1 else [None]
    return [Qwen3VL(config, topology, spec, grouped, padded, stage) for stage in stages]


def sharded(chunks: list[Qwen3VL], metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What megatron-core's save and load take: {"model": entries}, or model0, model1, … with virtual stages."""
    metadata = {**metadata, "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    names = ["model"] if len(chunks) == 1 else [f"model{i}" for i in range(len(chunks))]
    return {name: chunk.sharded_state_dict(metadata=metadata) for name, chunk in zip(names, chunks, strict=True)}
