"""A legacy checkpoint that megatron-core's modules saved, to be spoiled rank by rank, and converted or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.legacy import save_legacy
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_reference

from vlconv.converters import Mcore2HfOptions, Report, mcore2hf
from vlconv.converters.errors import VlconvError

MODEL = "model_optim_rng.pt"


class Given:
    """A checkpoint to spoil."""

    def __init__(self, work: Path, source: Path, reference: Path, hf: dict[str, torch.Tensor]) -> None:
        self.directory, self.reference, self.hf, self.out = (
            shutil.copytree(source, work / "release"),
            reference,
            hf,
            work / "hf",
        )

    def convert(self, **options: Any) -> Report:
        return mcore2hf(self.directory, self.out, Mcore2HfOptions(reference=str(self.reference), **options))

    def refused(self, kind: type[VlconvError], *says: str, **options: Any) -> VlconvError:
        with pytest.raises(kind) as caught:
            self.convert(**options)
        assert type(caught.value) is kind
        assert [part for part in says if part not in str(caught.value)] == [], str(caught.value)
        assert not self.out.exists()
        return caught.value

    def comes_back(self, **options: Any) -> Report:
        report = self.convert(**options)
        assert differing(read_hf(self.out), self.hf) == []
        return report

    @property
    def folders(self) -> list[str]:
        """The names of the ranks' folders."""
        return sorted(path.name for path in self.directory.iterdir())

    def edit_all(self, change: Callable[[dict[str, Any]], Any]) -> None:
        for folder in self.folders:
            self.edit(folder, change)

    def copy(self, source: str, target: str) -> None:
        """What a copy script's slip does."""
        shutil.copyfile(self.directory / source / MODEL, self.directory / target / MODEL)

    def edit(self, folder: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Load a rank's file, change it, save it."""
        state = torch.load(self.directory / folder / MODEL, weights_only=False)
        change(state)
        torch.save(state, self.directory / folder / MODEL)


class Saved:
    """One model, saved once for all tests of the module."""

    def __init__(self, directory: Path, topology: Topology, **model: bool) -> None:
        config = tiny(**model)
        self.hf, self.reference = random_hf_tensors(config), write_reference(directory / "reference", config)
        self.directory = save_legacy(directory / "ckpt", config, self.hf, topology, optimizer=False)

    def given(self, work: Path) -> Given:
        return Given(work, self.directory, self.reference, self.hf)
