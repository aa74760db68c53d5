"""A second reader of a Hugging Face directory: transformers itself.

Names, shapes and orientations are those of its own modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...report import Difference
from ...tensors.dtypes import storage
from ...tensors.spec import Box, Shape, TensorSpec
from .foreign import quiet, speaking_for

if TYPE_CHECKING:
    import torch

    from ...tensors.spec import Array

LIBRARY = "transformers"

OVERHEAD = 1 << 30
"""Bytes for the library's own, beside the weights."""


def memory_needed(specs: Mapping[str, TensorSpec], itemsize: int) -> int:
    """Bytes of memory, at most, to load tensors.

    All of them, the largest twice more (read, converted), a tenth for luck.
    """
    nbytes = [prod(spec.shape) * itemsize for spec in specs.values()]
    return sum(nbytes) * 11 // 10 + 2 * max(nbytes, default=0) + OVERHEAD


def free_memory() -> int:
    """Bytes to be had without swapping: MemAvailable, or what this process's control group leaves of its limit."""
    told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(told["MemAvailable"].removesuffix("kB")) * 1024
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        group = Path(f"/sys/fs/cgroup{own}")
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        cache = next(
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, StopIteration, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used + cache)


def expected(directory: Path) -> dict[str, Shape]:
    """Name and shape of each tensor of the model that a directory's config.json describes, from a model without memory.

    Raises:
        NotComparable: transformers is missing, too old for this model, or refuses the config.
    """
    with _transformers() as (transformers, torch):
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(
                config, attn_implementation="eager", trust_remote_code=False
            )
        return {name: tuple(tensor.shape) for name, tensor in _state(model).items()}


def load(directory: Path, dtype: str) -> tuple[TransformersReader, list[Difference]]:
    """What `from_pretrained` makes of a directory, on the CPU.

    Args:
        directory: with config.json and safetensors weights; no other file of it, and no network, is used for weights.
        dtype: to load as; that of the files, or one that holds theirs exactly.

    Returns:
        a Reader under transformers' names, and the tensors that it missed in the files or found too many.

    Raises:
        NotComparable: transformers refuses the files.
    """
    with _transformers() as (transformers, torch):
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        state = _state(model)
    missing = [
        Difference(str(n), "only in B", note="transformers does not find it in the files, and makes it up")
        for n in sorted(info["missing_keys"])
    ]
    surplus = [
        Difference(str(n), "only in A", note="transformers has no use for it") for n in sorted(info["unexpected_keys"])
    ]
    return TransformersReader(state), missing + surplus


@contextmanager
def _transformers() -> Iterator[tuple[Any, Any]]:
    """The library and torch, silent: what it would log of missing weights is in what `load` returns."""
    with quiet(), speaking_for(LIBRARY):
        import torch
        import transformers

        log: Any = transformers.utils.logging
        verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
        log.set_verbosity(log.CRITICAL)
        log.disable_progress_bar()
        try:
            yield transformers, torch
        finally:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


def _state(model: Any) -> dict[str, torch.Tensor]:
    """A model's tensors by name, each once: a tied output layer is the embedding under a second name."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            state[name] = tensor
        seen.add(id(tensor))
    return state


class TransformersReader:
    """A Reader of a model in memory."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self._state = {name: tensor.detach() for name, tensor in state.items()}
        self.specs = {
            name: TensorSpec(name, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()
        }

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        import torch

        part = self._state[box.name][tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]
        width = storage(self.specs[box.name].dtype)
        out[...] = part.view(getattr(torch, width.removeprefix("u"))).numpy().view(width)

    def finish(self) -> None:
        """See Reader."""
