"""A tiny Qwen out of megatron-core's modules: its GPTModel alone, or as mbridge, verl and AReaL wrap it.

language_model   the GPTModel
vision_model     see `towers`
"""

from __future__ import annotations

from typing import Any

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import MegatronModule

from vlconv.converters.models.shared.config import ModelConfig

from . import specs, towers
from .families import old_tower, stands_alone
from .hybrid import specs as hybrids
from .topology import Place, Spec, Topology


class Bare(GPTModel):
    """One model chunk of one rank: the language model alone, its names without a prefix."""

    def __init__(
        self, config: ModelConfig, topology: Topology, spec: Spec, grouped: bool, padded: bool, stage: int | None
    ) -> None:
        language = specs.language_config(config, topology, grouped)
        decoder = specs.language_spec(language, spec, stage)
        super().__init__(
            language,
            decoder,
            vocab_size=vocabulary(config, topology, padded),
            max_sequence_length=64,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
            share_embeddings_and_output_weights=config.text.tied,
            position_embedding_type="rope",
            mtp_block_spec=hybrids.mtp(language, decoder, stage),
            vp_stage=stage,
        )

    def layer_number(self, local: int) -> int:
        """The global number, from 0, of this chunk's language layer, as megatron-core numbers it."""
        return int(self.decoder.layers[local].layer_number) - 1


class Wrapped(MegatronModule):
    """One model chunk of one rank: the language model, and beside it on the first stage the tower, if there is one."""

    def __init__(
        self, config: ModelConfig, topology: Topology, spec: Spec, grouped: bool, padded: bool, stage: int | None
    ) -> None:
        super().__init__(specs.language_config(config, topology, grouped))
        if config.vision and parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage):
            tower = towers.Qwen25Tower if old_tower(config) else towers.Qwen3Tower
            self.vision_model = tower(config, topology, spec)
        self.language_model = Bare(config, topology, spec, grouped, padded, stage)

    def layer_number(self, local: int) -> int:
        """As of the language model."""
        return self.language_model.layer_number(local)


Chunk = Bare | Wrapped


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
    config: ModelConfig,
    topology: Topology,
    spec: Spec = "te",
    grouped: bool = False,
    padded: bool = False,
    bare: bool | None = None,
) -> list[Chunk]:
    """Initialise megatron-core's groups on this rank and build its model chunks, one for each virtual pipeline stage.

    Args:
        config: the model.
        topology: parallel sizes.
        spec: Transformer Engine's or megatron-core's own modules.
        grouped: experts in one module.
        padded: whether the vocabulary is padded.
        bare: whether the language model stands alone; None: as the family has it.
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
    kind = Bare if stands_alone(config, bare) else Wrapped
    assert kind is Wrapped or config.vision is None, "a language model alone has no tower; see tiny.without_tower"
    return [kind(config, topology, spec, grouped, padded, stage) for stage in stages]


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
