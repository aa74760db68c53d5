"""What one would run on a CPU without vlconv, each a process of its own, its output brought to the disk.

python -m bench.rival NAME SOURCE TARGET
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def dcp_to_torch_save(source: Path, target: Path) -> None:
    """torch's own: every tensor into one file of torch.save, names and shapes as they are."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(source, target / "model.pt")


def load_plain_tensors(source: Path, target: Path) -> None:
    """megatron-core's loader and safetensors' writer, names and shapes as they are."""
    import torch
    import torch.distributed as dist
    from megatron.core.dist_checkpointing import load_plain_tensors
    from safetensors.torch import save_file

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    state = load_plain_tensors(str(source))
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    save_file(tensors, target / "model.safetensors")
    dist.destroy_process_group()


def from_pretrained(source: Path, target: Path) -> None:
    """transformers reads a Hugging Face directory and writes it again."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(source, dtype="auto", local_files_only=True)
    model.save_pretrained(target)


def main() -> None:
    """Run one."""
    name, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    target.mkdir()
    {f.__name__: f for f in (dcp_to_torch_save, load_plain_tensors, from_pretrained)}[name](source, target)
    for path in target.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


if __name__ == "__main__":
    main()
