"""One side as transformers is to run it: in its own directory, or as a plain copy in a temporary one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoint.absent.mtp import with_layers
from ...checkpoint.absent.union import only
from ...checkpoint.hf_side import HfSide
from ...checkpoint.mcore_side import McoreSide
from ...config.hf_config import config_json
from ...conversion.to_hf.from_mcore import hf_config_of
from ...errors import NotComparable, shown_path
from ...formats import safetensors
from ...formats.output_file import OutFile, small_file
from ...models.shared.config import ModelConfig
from ...models.shared.fields import Tie
from ...output.writing.writer import write_files
from ...report import Observer, Phase, tell_phase
from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Reader
from ...workers import Workers
from ..sources import Side
from ..witnesses.transformers import memory_needed
from .batch import LENGTH, SEQUENCES, WITH_IMAGE
from .cut import cut_config
from .hugging_face.directory import check_taken

SHARD = 5_000_000_000
"""Bytes of a file of a copy."""

LOGITS_HELD = 4
"""Arrays of the logits' size that are in memory while they are computed."""


@dataclass(frozen=True)
class Model:
    """One side.

    Attributes:
        name: "A", "B".
        side: as it was opened.
        hf_config: the config.json that transformers sees.
        config: the integers of what is run.
        reader: the tensors of that, under the Hub's names.
        own: transformers reads the side's own directory.
    """

    name: str
    side: Side
    hf_config: dict[str, Any]
    config: ModelConfig
    reader: Reader
    own: bool

    @property
    def copied(self) -> int:
        """Bytes of the temporary copy; 0: there is none."""
        return 0 if self.own else sum(spec.nbytes for spec in self.reader.specs.values())

    @property
    def logits(self) -> int:
        """Bytes of the logits of one run, at most."""
        return SEQUENCES * (LENGTH + WITH_IMAGE) * self.config.text.vocab * 4

    def memory(self, dtype: str) -> int:
        """Bytes of memory, at most, to run it in a dtype."""
        return memory_needed(self.reader.specs, ITEMSIZE[dtype]) + LOGITS_HELD * self.logits

    def copy_to(self, folder: Path, workers: Workers, observer: Observer) -> None:
        """Write the copy: weights in the dtypes that they have, and config.json; transformers needs no more."""
        files: list[OutFile] = safetensors.plan_hf(self.reader.specs, SHARD)
        files.append(small_file("config.json", config_json(self.hf_config)))
        tell_phase(observer, Phase.WRITING)
        write_files(self.reader, files, folder, workers, observer)


def model_of_side(name: str, side: Side, layers: int | None) -> Model:
    """A side, or its first layers.

    Raises:
        NotComparable: it has no logits, or not so many layers, or transformers would run other files of its directory.
    """
    whole = side.whole if isinstance(side, McoreSide) else side.config
    if whole.text.headless:
        raise NotComparable(
            f"{shown_path(side.directory)} is an embedding model: it has no output layer, so no logits",
            "Leave --forward out.",
        )
    if layers is not None and layers > whole.text.layers:
        raise NotComparable(
            f"--layers {layers} are more than the {whole.text.layers} that {shown_path(side.directory)} has",
            "Give fewer, or leave --layers out.",
        )
    cut = None if layers == whole.text.layers else layers
    hf_config = side.hf_config if isinstance(side, HfSide) else hf_config_of(side, side.as_hf.specs)
    if cut is not None:
        hf_config = cut_config(hf_config, cut)
    tie = Tie(whole.text.tied, "")
    config = with_layers(side.model.config_of(hf_config, tie), 0) if cut is not None else with_layers(whole, 0)
    reader = side.as_hf if isinstance(side, McoreSide) else side.reader
    own = isinstance(side, HfSide) and cut is None and side.step is None and side.adapter is None
    if own:
        check_taken(side.directory, hf_config)
    return Model(name, side, hf_config, config, only(reader, side.model.hf_tensors(config)), own)
