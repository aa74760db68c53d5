"""megatron-core loads a checkpoint into its own model, strictly, and every local parameter is compared with the
formula.

assert load_and_compare(directory, config, hf, Topology(tp=4)) == []
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vlconv.converters.models.shared.config import ModelConfig

from . import ranks
from .formulas import Tensors
from .topology import Form, Spec, Topology

Strict = Literal["raise_all", "raise_unexpected", "assume_ok_unexpected", "log_all"]
"""megatron-core's StrictHandling. raise_all: every key of the checkpoint is asked for, and every asked key is there.
assume_ok_unexpected: Megatron-LM's default."""


def load_and_compare(
    directory: Path,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    form: Form | None = None,
    spec: Spec = "te",
    *,
    grouped: bool = True,
    padded: bool = False,
    strict: Strict = "raise_all",
    bare: bool | None = None,
) -> list[str]:
    """Load a torch_dist checkpoint of weights alone.

    Args:
        directory: the one that holds `.metadata`. With `raise_all` it may hold nothing besides the model, so no
            optimizer.
        config: the model.
        hf: what the checkpoint should hold, as Hugging Face tensors under the Hub's names.
        topology: of the model that loads; nothing to do with the one that saved.
        form: the form of keys to ask for; None: as the checkpoint's content_metadata says, which is how a trainer
            decides.
        spec: the modules of the model that loads.
        grouped: see `save`.
        padded: whether the loading model has a padded vocabulary; the padding is not compared.
        strict: how a missing or surplus key is taken.
        bare: whether the language model stands alone, its names without a prefix; None: as the family has it.

    Returns:
        What differs: `rank …: name: reason` for every local parameter whose bits or dtype are not the formula's. Empty:
            all is well.

    Raises:
        RankError: megatron-core refused the checkpoint; the text holds its words.
    """
    options = (form, spec, grouped and spec == "te", padded, strict, bare)
    faults = ranks.run(topology.world, "mcore.reading:read", str(directory), config, hf, topology, *options)
    return [f"rank {rank}: {fault}" for rank, found in enumerate(faults) for fault in found]
