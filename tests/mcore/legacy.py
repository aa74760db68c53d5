"""Legacy checkpoints (`--ckpt-format torch`): one file of each rank's own state dict, saved from and loaded into
megatron-core's modules.

save_legacy(tmp_path / "ckpt", config, hf, Topology(tp=2, pp=2))      # ckpt/release/mp_rank_00_000/model_optim_rng.pt,
… and the tracker file
assert load_legacy(tmp_path / "ckpt" / "release", config, hf, Topology(tp=2, pp=2)) == []
"""

from __future__ import annotations

from pathlib import Path

from vlconv.converters.models.shared.config import ModelConfig

from . import ranks
from .formulas import Tensors
from .topology import Spec, Topology


def save_legacy(
    directory: Path,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    spec: Spec = "te",
    *,
    grouped: bool = True,
    padded: bool = False,
    optimizer: bool = True,
    args: bool = True,
    iteration: int | None = None,
    bare: bool | None = None,
) -> Path:
    """Save every rank's state dict as Megatron-LM does; the arguments are those of `save`.

    Returns:
        The directory of the `mp_rank_…` directories: `release`, or `iter_…`.
    """
    tracked = "release" if iteration is None else str(iteration)
    target = directory / (tracked if iteration is None else f"iter_{iteration:07d}")
    target.mkdir(parents=True)
    options = (spec, grouped and spec == "te", padded, optimizer, (iteration or 0) if args else None, bare)
    ranks.run(topology.world, "mcore.writing:write_legacy", str(target), config, hf, topology, *options)
    (directory / "latest_checkpointed_iteration.txt").write_text(tracked)
    return target


def load_legacy(
    directory: Path,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    spec: Spec = "te",
    *,
    grouped: bool = True,
    padded: bool = False,
    bare: bool | None = None,
) -> list[str]:
    """Load each rank's file with load_state_dict(strict=True) and compare every parameter with the formula.

    Args:
        directory: of the `mp_rank_…` directories.
        config: the model.
        hf: what the files should hold, as Hugging Face tensors under the Hub's names.
        topology: that the files were written for.
        spec: the modules of the model that loads.
        grouped: see `save`.
        padded: whether the model has a padded vocabulary.
        bare: see `save`.

    Returns:
        What differs, as `load_and_compare`.
    """
    options = (spec, grouped and spec == "te", padded, bare)
    faults = ranks.run(topology.world, "mcore.reading:read_legacy", str(directory), config, hf, topology, *options)
    return [f"rank {rank}: {fault}" for rank, found in enumerate(faults) for fault in found]
