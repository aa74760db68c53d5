"""Checkpoints written by megatron-core itself, on CPU.

    config = tiny(tied=True)
    hf = random_hf_tensors(config)
    save(tmp_path / "ckpt", config, hf, Topology(tp=2, pp=2, vpp=2))                     # a directory with .metadata
    save(tmp_path / "ckpt", config, hf, Topology(tp=4), form="per_layer", iteration=10)  # ckpt/iter_0000010 and the tracker file

Under pytest: the first save of a session waits for megatron-core's import, 5 to 10 s; `ranks.prepare()` in a conftest's pytest_sessionstart hides it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.optimizer import make_sharded_optimizer_tensor
from vlconv.converters.models.config import ModelConfig

from . import model, ranks
from .fill import Tensors, fill
from .specs import Spec
from .topology import Topology

Form = Literal["stacked", "per_layer", "singleton"]
