"""Vision towers out of megatron-core's modules, as mbridge builds them. They live whole on the first pipeline stage,
cut by tensor parallelism.

Qwen3Tower    patch_embed.proj, pos_embed, decoder (a TransformerBlock that also owns the deepstack mergers), merger
Qwen25Tower   patch_embed.proj, decoder (a TransformerBlock with its final norm), projection (megatron-core's
MultimodalProjector)
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.dist_checkpointing.utils import replace_prefix_for_sharding
from megatron.core.models.vision.multimodal_projector import MultimodalProjector
from megatron.core.transformer import MegatronModule, TransformerConfig
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.transformer_block import TransformerBlock, TransformerBlockSubmodules

from vlconv.converters.models.shared.config import ModelConfig, VisionConfig

from . import specs
from .topology import Spec, Topology


class Merger(MegatronModule):
    """patch_norm over one patch or over merge x merge patches side by side, then two linear layers."""

    def __init__(
        self, config: TransformerConfig, vision: VisionConfig, norm_width: int, modules: tuple[Any, Any, Any]
    ) -> None:
        super().__init__(config)
        norm, column, row = modules
        common: dict[str, Any] = {
            "config": config,
            "init_method": config.init_method,
            "bias": True,
            "skip_bias_add": False,
        }
        self.patch_norm = norm(config=config, hidden_size=norm_width, eps=config.layernorm_epsilon)
        self.linear_fc1 = column(vision.merged, vision.merged, gather_output=False, **common)
        self.linear_fc2 = row(vision.merged, vision.out_hidden, input_is_parallel=True, **common)


class VisionBlocks(TransformerBlock):
    """The vision blocks, and beside them the deepstack mergers, stacked on an axis of their own in a checkpoint."""

    def __init__(self, config: TransformerConfig, vision: VisionConfig, spec: Spec) -> None:
        super().__init__(config, specs.vision_spec(spec), post_layer_norm=False)
        modules = specs.merger_modules(spec)
        self.deepstack_merger_list = torch.nn.ModuleList(
            Merger(config, vision, vision.merged, modules) for _ in vision.deepstack
        )

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: Any = None
    ) -> dict[str, Any]:
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
            made = merger.sharded_state_dict(
                local, ((0, index, len(self.deepstack_merger_list)),) if stacked else (), metadata
            )
            if stacked:
                replace_prefix_for_sharding(made, local, f"{prefix}deepstack_merger_list.")
            entries |= made
        return entries


class PatchEmbed(torch.nn.Module):
    """Patches to vectors: a convolution as wide as its stride."""

    def __init__(self, vision: VisionConfig, dtype: torch.dtype, bias: bool) -> None:
        super().__init__()
        kernel = vision.patch_shape[2:]
        self.proj = torch.nn.Conv3d(vision.channels, vision.hidden, kernel, stride=kernel, bias=bias, dtype=dtype)


class Qwen3Tower(MegatronModule):
    """Qwen3-VL's vision tower."""

    def __init__(self, config: ModelConfig, topology: Topology, spec: Spec) -> None:
        mcore, vision = specs.vision_config(config, topology), config.tower
        super().__init__(mcore)
        self.patch_embed = PatchEmbed(vision, mcore.params_dtype, bias=True)
        self.pos_embed = torch.nn.Embedding(vision.positions, vision.hidden, dtype=mcore.params_dtype)
        self.decoder = VisionBlocks(mcore, vision, spec)
        self.merger = Merger(mcore, vision, vision.hidden, specs.merger_modules(spec))


class Qwen25Tower(MegatronModule):
    """Qwen2.5-VL's vision tower."""

    def __init__(self, config: ModelConfig, topology: Topology, spec: Spec) -> None:
        mcore, vision = specs.vision_config(config, topology), config.tower
        super().__init__(mcore)
        norm, column, row = specs.merger_modules(spec)
        layers = TransformerBlockSubmodules(layer_specs=[specs.vision_spec(spec)] * vision.depth, layer_norm=norm)
        self.patch_embed = PatchEmbed(vision, mcore.params_dtype, bias=False)
        self.decoder = TransformerBlock(mcore, layers)
        modules = MLPSubmodules(linear_fc1=column, linear_fc2=row)
        projection = specs.projection_config(config, topology)
        self.projection = MultimodalProjector(projection, modules, "mlp", projection.ffn_hidden_size)
