"""Checkpoints written by megatron-core itself, on CPU.

    config = tiny(tied=True)
    hf = random_hf_tensors(config)
    save(tmp_path / "ckpt", config, hf, Topology(tp=2, pp=2, vpp=2))                     # a directory with .metadata
    save(tmp_path / "ckpt", config, hf, Topology(tp=4), form="per_layer", iteration=10)  # ckpt/iter_0000010 and the
    tracker file

Under pytest: the first save of a session waits for megatron-core's import, 5 to 10 s; `ranks.prepare()` at the start of
the session (returns at once) hides it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vlconv.converters.models.shared.config import ModelConfig

from . import ranks
from .formulas import Tensors
from .topology import Form, Spec, Topology


def save(
    directory: Path,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    form: Form = "stacked",
    spec: Spec = "te",
    *,
    grouped: bool = True,
    padded: bool = False,
    optimizer: bool = True,
    args: bool = True,
    common: Literal["own", "object"] = "own",
    iteration: int | None = None,
    integrity: bool = False,
    bare: bool | None = None,
) -> Path:
    """Let megatron-core write a torch_dist checkpoint.

    Args:
        directory: made here. The checkpoint itself, as AReaL saves; or with `iteration` Megatron-LM's folder above it.
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
        topology: parallel sizes.
        form: how keys are spelled.
        spec: Transformer Engine's or megatron-core's own modules.
        grouped: experts in one module (TEGroupedMLP), else one module each (SequentialMLP). The local spec has only the
            latter.
        padded: pad the vocabulary to a multiple of 128 x tp as Megatron-LM does.
        optimizer: write entries of an optimizer and of random number states too.
        args: save Megatron-LM's args, checkpoint_version and iteration too; AReaL and verl do not.
        common: where what is not sharded lies: where the installed megatron-core puts it, which is common.pt and from
            0.19 on an object among the items; or in such an object, whichever is installed.
        iteration: None, or the number in `iter_…` and the tracker file.
        integrity: write integrity.json: megatron-core does it from 0.19 on, for an earlier one it is done here.
        bare: whether the language model stands alone, its names without a prefix; None: as the family has it. A
            Qwen-VL has to be without its tower for that.

    Returns:
        The directory that holds `.metadata`.
    """
    target = directory if iteration is None else directory / f"iter_{iteration:07d}"
    target.mkdir(parents=True)
    options = (
        form,
        spec,
        grouped and spec == "te",
        padded,
        optimizer,
        (iteration or 1) if args else None,
        common == "object",
        integrity,
        bare,
    )
    ranks.run(topology.world, "mcore.writing:write", str(target), config, hf, topology, *options)
    if iteration is not None:
        (directory / "latest_checkpointed_iteration.txt").write_text(str(iteration))
    return target
