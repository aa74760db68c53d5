"""Conversions of the models of tests/mcore, there and back, and the options that ask for a topology."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.load import Strict
from mcore.topology import Topology
from packaging.version import Version
from references import read_hf, write_hf, write_reference

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, Report, hf2mcore, mcore2hf
from vlconv.converters.models.shared.config import ModelConfig

Tensors = dict[str, torch.Tensor]


NEWER = Version(version("megatron-core")) >= Version("0.19")
"""Whether megatron-core calls the layer in an MTP head mtp_model_layer, not transformer_layer, as vlconv writes it.

torch_dist has the older name in any version; but from then on it has no state of that layer's attention.
"""


def sizes(topology: Topology) -> dict[str, Any]:
    """The options that ask for rank files of a topology."""
    return {
        "format": "torch",
        "tensor_model_parallel_size": topology.tp,
        "pipeline_model_parallel_size": topology.pp,
        "virtual_pipeline_model_parallel_size": topology.vpp,
        "expert_model_parallel_size": topology.ep,
        "expert_tensor_parallel_size": topology.etp,
        "decoder_first_pipeline_num_layers": topology.first,
        "decoder_last_pipeline_num_layers": topology.last,
    }


def to_hf(
    tmp_path: Path, source: Path, config: ModelConfig, weights: Tensors | None = None, **options: Any
) -> tuple[Tensors, Report]:
    """Convert to tmp_path/hf with a reference of this config: the tensors read back, and the report.

    Args:
        tmp_path: the reference is made there.
        source: the checkpoint.
        config: of the reference.
        weights: of the reference; None: it has none.
        options: of Mcore2HfOptions.
    """
    reference = tmp_path / "reference"
    if weights is None:
        write_reference(reference, config)
    else:
        write_hf(reference, config, weights)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(reference), **options))
    assert report.status == "done"
    return read_hf(tmp_path / "hf"), report


def to_mcore(tmp_path: Path, config: ModelConfig, hf: Tensors, **options: Any) -> Report:
    """Write a Hugging Face directory and convert it; the checkpoint is tmp_path/mcore."""
    report = hf2mcore(write_hf(tmp_path / "hf", config, hf), tmp_path / "mcore", Hf2McoreOptions(**options))
    assert report.status == "done"
    return report


def slow(*values: Any) -> Any:
    """The values of a parametrized test that is left to `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.slow)


def pairs(cases: Iterable[tuple[Any, ...]]) -> set[Any]:
    """Every two values that occur together in a case, with their places in it."""
    return {pair for case in cases for pair in combinations(enumerate(case), 2)}


def strictest(config: ModelConfig) -> Strict:
    """raise_all where the installed megatron-core asks for every key there is; else every key it asks for is there."""
    return "raise_unexpected" if NEWER and config.text.mtp else "raise_all"


def as_installed_reads(release: Path) -> Path:
    """Rank files, with the MTP head's layer called as the installed megatron-core calls it; changed in place."""
    for file in release.glob("*/model_optim_rng.pt") if NEWER else ():
        state = torch.load(file, weights_only=False)
        for chunk in (key for key in state if key.startswith("model")):
            state[chunk] = {installed(name): t for name, t in state[chunk].items()}
        torch.save(state, file)
    return release


def installed(name: str) -> str:
    """A name in rank files as the installed megatron-core has it."""
    return name.replace(".transformer_layer.", ".mtp_model_layer.") if NEWER else name
