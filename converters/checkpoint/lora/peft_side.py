"""An adapter in a PEFT directory, read with the config of its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...adapters.adapter import Adapter, Kind
from ...adapters.peft.opened import PeftSide
from ...adapters.peft.read import adapter_of
from ...formats.holes import told as told_holes
from ...formats.opened import Summed
from ...models.shared.config import ModelConfig


@dataclass(frozen=True)
class PeftAdapter:
    """What a PEFT directory holds, as AdapterSide is of a Megatron checkpoint.

    Attributes:
        alone: the files.
        adapter: every change.
    """

    alone: PeftSide
    adapter: Adapter

    @property
    def directory(self) -> Path:
        """The folder that holds the files."""
        return self.alone.directory

    @property
    def kind(self) -> Kind:
        """What it is by its names."""
        targets = dict.fromkeys(pair.module.rpartition(".")[2] for pair in self.adapter.pairs)
        return Kind("peft", "peft's names (lora_A, lora_B)", len(self.alone.chunks.specs) // 2, tuple(targets))

    @property
    def checkpoints(self) -> tuple[Summed, ...]:
        """Safetensors files have no checksums."""
        return ()

    @property
    def warnings(self) -> list[str]:
        """What is to be told of the files."""
        return told_holes(self.alone.chunks.holes)


def read_peft(alone: PeftSide, config: ModelConfig) -> PeftAdapter:
    """Read an adapter with its base's config.

    Raises:
        MismatchError, UnsupportedError: it does not fit; see `adapter_of`.
    """
    return PeftAdapter(alone, adapter_of(alone, config))
