"""Directories with adapters and their bases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tiny import write_tiny_hf
from torch import Tensor
from trainers.places import stacks
from trainers.saving import save, stacked

from .making import Made


def written(root: Path, made: Made, tensors: dict[str, Tensor], **run_config: Any) -> Path:
    """A checkpoint, its layers stacked as the trainer stacks them; with `run_config` beside it, if there is some."""
    place = save(root / "iter_0000007", stacked(tensors, *stacks(made.name, made.sizes)))
    if run_config:
        (place / "run_config.yaml").write_text(yaml.safe_dump({"peft": run_config}))
    return root


def base(root: Path, made: Made) -> Path:
    """The model without its adapter, as a Hugging Face directory."""
    write_tiny_hf(root, made.config, tensors=made.hf)
    return root


def with_reference(root: Path, made: Made) -> Path:
    """A checkpoint's directory, with the Hugging Face model beside it."""
    base(root / "huggingface", made)
    return root
