"""In the child: megatron-core made to run with its own modules alone, on whatever this machine has.

What is changed here is changed for the whole process, so nothing else may live in it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

FASTER = ("transformer_engine", "apex", "fla", "causal_conv1d", "flash_attn", "nvidia_kitchen")
"""Libraries that megatron-core takes in its own modules' place where they are installed. They round otherwise, and most
run on GPUs alone."""

DELTA_NET = "megatron.core.ssm.gated_delta_net"


def prepare() -> None:
    """To be called before megatron-core is imported: every machine then computes with the same modules.

    Nothing is compiled: that takes longer than one forward pass, and a compiler besides.
    """
    import torch

    warnings.simplefilter("ignore")
    for name in FASTER:
        sys.modules[name] = None  # type: ignore[assignment]  # as Python spells that there is none
    compiler: Any = torch
    compiler.compile = _as_it_is


def _as_it_is(function: Any = None, **_options: Any) -> Any:
    return _as_it_is if function is None else function


def without_random_numbers() -> None:
    """No generators are set up for dropout, which a model that is not trained does not have."""
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker

    CudaRNGStatesTracker.fork = _nothing


def on_cpu() -> None:
    """Let megatron-core take the CPU for its device."""
    import torch

    def same(one: Any, *_args: Any, **_kwargs: Any) -> Any:
        return one

    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("cpu")
    tensor: Any = torch.Tensor
    tensor.cuda = same


@contextlib.contextmanager
def _nothing(*_args: Any, **_kwargs: Any) -> Iterator[None]:
    yield


def with_local_router() -> None:
    """Let experts be chosen where Transformer Engine is missing.

    0.16 asks whether its product of matrices is None, and then has no such name.
    """
    from megatron.core.transformer.moe import moe_utils

    moe_utils.te_general_gemm = None


def with_local_delta_net() -> None:
    """Let a Gated DeltaNet be made without flash-linear-attention.

    In its deterministic mode megatron-core computes one in plain torch, but for the norm of queries and keys.
    """
    module = importlib.import_module(DELTA_NET)
    # Both names live where the rule in plain torch does; in later versions that is another module.
    home: Any = importlib.import_module(module.torch_chunk_gated_delta_rule.__module__)
    home.HAVE_FLA = True
    home.l2norm = _l2norm


def with_short_chunks(gpt: Any) -> None:
    """Let the Gated DeltaNets of a model take 16 positions at a time, not 64."""
    module: Any = importlib.import_module(DELTA_NET)
    rule = module.torch_chunk_gated_delta_rule
    home: Any = importlib.import_module(rule.__module__)
    home.torch_chunk_gated_delta_rule = short = partial(rule, chunk_size=16)  # 0.16 looks there each time
    for part in gpt.modules():
        if getattr(part, "gated_delta_rule", None) is rule:  # later versions hold it
            part.gated_delta_rule = short


def _l2norm(x: Any) -> Any:
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
