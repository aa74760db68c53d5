"""The files of a Megatron checkpoint to write, in either format: what hf2mcore and mcore2mcore share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...config.run_config import RUN_CONFIG, run_config_yaml
from ...config.written_args import args_to_write
from ...formats.dcp.write import plan_torch_dist
from ...formats.directory.locate import TRACKER
from ...formats.keys import pieces_of
from ...formats.legacy.write import LegacyModel, plan_legacy
from ...formats.output_file import OutFile, small_file
from ...layouts.layout import Layout
from ...layouts.shared.splits import splits_of
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...options import McoreTarget
from ...parallel.model_chunk import WholeModel
from ...tensors.dtypes import main_dtype
from ...tensors.sharding import Topology
from ...tensors.spec import TensorSpec
from ...tensors.vocabulary import padded_rows


def rows_to_write(config: ModelConfig, output: McoreTarget) -> int:
    """Rows of the embedding on the mcore side, padded as Megatron pads it when a divisor is given. Raises as that."""
    return padded_rows(config.text.vocab, output.make_vocab_size_divisible_by, output.tensor_model_parallel_size)


def topology_of(output: McoreTarget) -> Topology:
    """The topology asked for."""
    tp = output.tensor_model_parallel_size
    return Topology(
        tp=tp,
        pp=output.pipeline_model_parallel_size,
        vpp=output.virtual_pipeline_model_parallel_size,
        ep=output.expert_model_parallel_size,
        etp=output.expert_tensor_parallel_size or tp,
        first=output.decoder_first_pipeline_num_layers,
        last=output.decoder_last_pipeline_num_layers,
    )


RELEASE = "release"
"""Converted weights, to Megatron: no optimizer, random state or iteration is asked of them."""

ALSO = "iter_0000000"
"""The same to Megatron-Bridge, whose loaders take the `iter_*` with the largest number and know no `release`."""


WEIGHTS_ALONE = {"ckpt_format": "torch_dist", "no_save_optim": True, "no_save_rng": True}
"""Args of an iteration that is not resumed from: there is no state to look for."""


class McoreFiles(NamedTuple):
    """What a checkpoint consists of.

    Attributes:
        files: with the tracker file.
        folder: the one that the tracker names.
        links: names of relative symbolic links, and what each stands for.
    """

    files: list[OutFile]
    folder: str
    links: dict[str, str]


def mcore_files(
    specs: Mapping[str, TensorSpec],
    config: ModelConfig,
    hf_config: Mapping[str, Any],
    layout: Layout,
    output: McoreTarget,
) -> McoreFiles:
    """All of a checkpoint with its tracker, in a folder under every name that the layout's trainers look for.

    Args:
        specs: the tensors under the layout's names.
        config: the model.
        hf_config: the model's config.json, for what rank files and run_config.yaml state.
        layout: the naming.
        output: format, topology and iteration.

    Raises:
        MismatchError: a topology that cannot be.
    """
    topology = topology_of(output)
    word = RELEASE if output.as_iteration is None else str(output.as_iteration)
    folder = RELEASE if output.as_iteration is None else f"iter_{output.as_iteration:07d}"
    links: dict[str, str] = {}
    if output.format == "torch":
        files = plan_legacy(_legacy(specs, config, hf_config, layout, output), topology)
    else:
        lists = () if output.per_layer else layout.stacks(config)
        args = _args(specs, config, hf_config, layout, output) | WEIGHTS_ALONE if layout.numbered else None
        splits = splits_of(specs, config, layout)
        sections = {name: s.sections for name, s in splits.items() if s.sections and pieces_of(name)}
        files = plan_torch_dist(specs, lists, layout.extra_state(config), output.as_iteration or 0, args, sections)
        if layout.run_config and model_of(config).bridge:
            files.append(small_file(RUN_CONFIG, run_config_yaml(hf_config, config, main_dtype(specs))))
            links = {ALSO: folder} if folder == RELEASE else {}
    for file in files:
        file.name = f"{folder}/{file.name}"
    return McoreFiles([*files, small_file(TRACKER, word.encode())], folder, links)


def _legacy(
    specs: Mapping[str, TensorSpec],
    config: ModelConfig,
    hf_config: Mapping[str, Any],
    layout: Layout,
    output: McoreTarget,
) -> LegacyModel:
    return LegacyModel(
        whole=WholeModel(specs, splits_of(specs, config, layout), layout.text, layout.sequential, config.text.tied),
        extra_state=list(layout.extra_state(config)),
        args=_args(specs, config, hf_config, layout, output),
        iteration=output.as_iteration or 0,
    )


def _args(
    specs: Mapping[str, TensorSpec],
    config: ModelConfig,
    hf_config: Mapping[str, Any],
    layout: Layout,
    output: McoreTarget,
) -> dict[str, Any]:
    return args_to_write(
        hf_config,
        config,
        topology_of(output),
        rows=rows_to_write(config, output),
        divisor=output.make_vocab_size_divisible_by,
        dtype=main_dtype(specs),
        grouped_experts=not layout.sequential,
    )
