"""On a rank:
megatron-core writes a checkpoint of real size from a Hugging Face directory, of which a rank maps into memory what it
needs.
"""

from __future__ import annotations

from safetensors.torch import load_file

from vlconv.converters.models.shared.config import ModelConfig

from .topology import Topology
from .writing import write


def write_from(directory: str, config: ModelConfig, safetensors: str, topology: Topology) -> None:
    """As `writing.write`, stacked keys of Transformer Engine modules, without optimizer, the weights read from one
    safetensors file.
    """
    write(directory, config, load_file(safetensors), topology, "stacked", "te", True, False, False, None)
