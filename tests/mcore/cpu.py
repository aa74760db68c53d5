"""What megatron-core (0.16 to 0.19) needs patched to run without a GPU. For ranks only: these live for one job."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing.dummy
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.ssm import gated_delta_net
from megatron.core.tensor_parallel import random as tensor_parallel_random
from megatron.core.transformer.moe import moe_utils


class _Stream:
    """Stands for torch.cuda.Stream: on a CPU everything is in order anyway."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def wait_stream(self, _other: Any) -> None:
        pass


@contextlib.contextmanager
def _nothing(*_args: Any, **_kwargs: Any) -> Iterator[None]:
    yield


def _l2norm(x: torch.Tensor) -> torch.Tensor:
    """What the one of flash-linear-attention computes."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _each_once(new_group: Callable[..., Any]) -> Callable[..., Any]:
    """One group for the same ranks, whatever they meet for: megatron-core makes forty, and each costs milliseconds."""
    made: dict[tuple[int, ...], Any] = {}

    def group(ranks: Sequence[int] | None = None, **how: Any) -> Any:
        key = tuple(ranks or ())
        if key not in made:
            made[key] = new_group(ranks, **how)
        return made[key]

    return group


def pretend() -> None:
    """Let megatron-core take the CPU for its device, and save in this process."""
    torch.distributed.new_group = _each_once(torch.distributed.new_group)
    os.fsync = lambda fd: None  # no test loses power
    # psutil: without it megatron-core's writer dies in a thread and save() waits for ever.
    assert filesystem_async.HAVE_PSUTIL, "megatron-core's save() hangs without psutil"
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.current_stream = lambda *_: _Stream()
    torch.cuda.Stream = _Stream
    torch.cuda.stream = _nothing
    torch.Tensor.cuda = lambda self, *_args, **_kwargs: self
    tensor_parallel_random.CudaRNGStatesTracker.fork = _nothing
    # 0.16.1 asks whether this is None, but where Transformer Engine is missing the name is too.
    moe_utils.te_general_gemm = None
    # A Gated DeltaNet can do without flash-linear-attention (GPUs only) in its deterministic mode, but asks for it.
    # Both names live where the rule for that mode does: from 0.19 on that is a module of a package.
    home = importlib.import_module(gated_delta_net.torch_chunk_gated_delta_rule.__module__)
    home.HAVE_FLA = True
    home.l2norm = _l2norm
    # The queue of results crosses processes only in an asynchronous save; a manager process for each rank would cost
    # two seconds.
    filesystem_async._results_queue = queue.Queue()
    # And a thread writes each file: a fork for each would cost more than the writing.
    threads = {"get_context": lambda _: multiprocessing.dummy}
    filesystem_async.mp = SimpleNamespace(**(vars(filesystem_async.mp) | threads))
