"""A tiny Qwen-VL out of megatron-core's modules, shaped as mbridge, verl and AReaL shape it.

language_model   megatron-core's GPTModel
vision_model     see `towers`
"""

from __future__ import annotations

from typing import Any

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import MegatronModule

from vlconv.converters.models.shared.config import ModelConfig

from . import specs, towers
from .topology import Place, Spec, Topology


class Chunk(MegatronModule):
    """One model chunk of one rank."""

    def __init__(
        self, config: ModelConfig, topology: Topology, spec: Spec, grouped: bool, padded: bool, stage: int | None
    ) -> None:
        language = specs.language_config(config, topology, grouped)
        super().__init__(language)
        first = parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage)
        if first:
            tower = towers.Qwen25Tower if config.model_type == "qwen2_5_vl" else towers.Qwen3Tower
            self.vision_model = tower(config, topology, spec)
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
        """The global number, from 0, of the language layer that a local parameter `….decoder.layers.{local}.…` belongs
        to, as megatron-core numbers it.
        """
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


def build(
    config: ModelConfig, topology: Topology, spec: Spec = "te", grouped: bool = False, padded: bool = False
) -> list[Chunk]:
    """Initialise megatron-core's groups on this rank and build its model chunks, one for each
    virtual pipeline stage.
    """
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=topology.tp,
        pipeline_model_parallel_size=topology.pp,
        virtual_pipeline_model_parallel_size=topology.vpp if topology.vpp > 1 else None,
        expert_model_parallel_size=topology.ep,
        expert_tensor_parallel_size=topology.expert_tp,
        create_gloo_process_groups=False,
    )
    stages = list(range(topology.vpp)) if topology.vpp > 1 else [None]
    return [Chunk(config, topology, spec, grouped, padded, stage) for stage in stages]


def sharded(chunks: list[Chunk], metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What megatron-core's save and load take: {"model": entries}, or model0, model1, … with virtual stages."""
    metadata = {**metadata, "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    return {
        name: chunk.sharded_state_dict(metadata=metadata) for name, chunk in zip(names(chunks), chunks, strict=True)
    }


def names(chunks: list[Chunk]) -> list[str]:
    """Under which keys Megatron-LM keeps its model chunks."""
    return ["model"] if len(chunks) == 1 else [f"model{i}" for i in range(len(chunks))]


def legacy_folder(topology: Topology) -> str:
    """This rank's `mp_rank_…`:
    the pipeline rank only where there is a pipeline, the expert rank only where experts are spread.
    """
    name = f"mp_rank_{parallel_state.get_tensor_model_parallel_rank():02d}"
    name += f"_{parallel_state.get_pipeline_model_parallel_rank():03d}" if topology.pp > 1 else ""
    return name + (f"_{parallel_state.get_expert_model_parallel_rank():03d}" if topology.ep > 1 else "")
