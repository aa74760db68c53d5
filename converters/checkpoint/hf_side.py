"""A Hugging Face directory, opened: its model, and a Reader of its tensors under the Hub's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.hf_config import read_config
from ..config.output_layer import why_without
from ..config.quantization import Quantization, split_quantization
from ..errors import MismatchError, shown, shown_path
from ..formats import is_mcore, safetensors
from ..formats.chunks import ChunkReader
from ..formats.directory.locate import one_or_more
from ..formats.directory.mistaken import taken_for_hf
from ..formats.directory.unfinished import check_finished
from ..formats.seen_files import SeenFiles
from ..formats.sums.replicas import check_tied_copy
from ..models import model_for
from ..models.shared.config import ModelConfig
from ..models.shared.fields import Tie, decide_tie, stated_tie
from ..models.shared.hf_dialects import Dialect, ExpertsForm, dialect_copies, read_dialect
from ..models.shared.model import MTP, Model
from ..options.rules import MtpAsIs
from ..tensors.dtypes import FLOATS
from ..tensors.fp8.dequantised import Dequantised
from ..tensors.mapped import Mapped, check_names
from ..tensors.rules import flipped, hulls
from ..tensors.spec import Reader, Shape, TensorSpec
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .absent.mtp import settle_head
from .absent.union import Union, only, without
from .collector import paused
from .consistency import naming_config
from .fp8.files import scaled_tensors
from .lora.adapter_side import AdapterSide
from .shape_errors import check_shapes

WAY_OUT = "If config.json is another model's, take the one that was saved with these weights."


@dataclass(frozen=True)
class HfSide:
    """A Hugging Face directory.

    Attributes:
        directory: that holds config.json and the weights.
        hf_config: config.json; without a head that is dropped, and without quantization_config.
        model, config: what it describes.
        tie: whether the embeddings are tied, and who said so.
        copy: the output layer of a tied model that is there all the same, bit for bit the embedding; "" without.
        dialect: how the files spell the tensors.
        reader: the tensors under the Hub's names.
        chunks: the reader below it.
        files: all files that were opened.
        left_behind: the tensors of a multi-token-prediction head that is dropped.
        head_restated: whether `hf_config` promises no head any more.
        quantization: what config.json says of FP8 weights; None: they are plain.
        step: makes plain tensors of FP8 ones; None likewise.
        adapter: low-rank changes of the weights, from elsewhere, that `reader` has merged; None: none.
    """

    directory: Path
    hf_config: dict[str, Any]
    model: Model
    config: ModelConfig
    tie: Tie
    copy: str
    dialect: Dialect
    reader: Reader
    chunks: ChunkReader
    files: SeenFiles
    left_behind: list[str] = field(default_factory=list)
    head_restated: bool = False
    quantization: Quantization | None = None
    step: Dequantised | None = None
    adapter: AdapterSide | None = None

    @property
    def restated(self) -> bool:
        """Whether `hf_config` is another than the directory's."""
        return self.head_restated or self.quantization is not None


@paused()
def open_hf_side(
    directory: Path,
    experts_form: ExpertsForm | None = None,
    mtp: MtpAsIs | None = None,
    carried: Sequence[str] = (),
    *,
    no_output_layer: bool = False,
    fp8_as: str = "bfloat16",
) -> HfSide:
    """Open a Hugging Face directory; every name and shape is checked against its config.

    Args:
        directory: with config.json and safetensors weights.
        experts_form: how its experts are oriented, where their shape cannot show it.
        mtp: what becomes of a multi-token-prediction head; None: what is there.
        carried: prefixes of names that may be there though the model does not list them.
        no_output_layer: an embedding model has none.
        fp8_as: the dtype that FP8 tensors are made plain in: "bfloat16" or "float32".

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    side = hf_side_by_headers(directory, experts_form, mtp, carried, no_output_layer=no_output_layer, fp8_as=fp8_as)
    if side.copy:
        embedding = next(name for name in side.chunks.specs if name.endswith(EMBEDDING))
        with side.files.noting(), naming_config(directory, WAY_OUT):
            check_tied_copy(side.chunks, embedding, side.copy)
    return side


@paused()
def hf_side_by_headers(
    directory: Path,
    experts_form: ExpertsForm | None = None,
    mtp: MtpAsIs | None = None,
    carried: Sequence[str] = (),
    *,
    no_output_layer: bool = False,
    fp8_as: str = "bfloat16",
) -> HfSide:
    """As `open_hf_side`, and no tensor is read: that a tied model's output layer is a copy is not checked."""
    check_finished(directory)
    if mistaken := taken_for_hf(directory, one_or_more(is_mcore)):
        raise mistaken
    files = SeenFiles()
    with files.noting():
        without_output = why_without(directory, no_output_layer)
        return _open(directory, experts_form, mtp, tuple(carried), files, without_output, fp8_as)


def _open(
    directory: Path,
    experts_form: ExpertsForm | None,
    mtp: MtpAsIs | None,
    carried: tuple[str, ...],
    seen: SeenFiles,
    without_output: str,
    fp8_as: str,
) -> HfSide:
    hf_config, quantization = split_quantization(read_config(directory))
    model, where = model_for(hf_config), shown_path(directory)
    chunks = safetensors.open_hf(directory)
    step = Dequantised(chunks, scaled_tensors(chunks.specs, quantization, directory), fp8_as) if quantization else None
    raw: Reader = step or chunks
    refuse_quantised({name: spec for name, spec in raw.specs.items() if not (carried and name.startswith(carried))})
    with naming_config(directory, WAY_OUT):
        copy = tied_copy(raw, hf_config)
        output_layer = not copy and any(name.endswith(OUTPUT_LAYER) for name in raw.specs)
        tie = decide_tie(hf_config, output_layer, without_output)
    if step and copy in step.computed:
        raise MismatchError(f"{where}: {shown(copy)} is FP8, in a tied model", "Take it out: the embedding serves.")
    head = settle_head(
        model.config_of(hf_config, tie), hf_config, raw.specs, mtp, where=where, whose="config.json", ways=("drop",)
    )
    config = head.config
    left_behind = [name for name in raw.specs if head.dropped and name.startswith(MTP)]
    files = without(raw, {copy, *left_behind} if copy else left_behind)
    dialect = read_dialect({name: spec.shape for name, spec in files.specs.items()}, config, experts_form)
    copies = dialect_copies(config, dialect)
    shapes = hulls(copy.left for copy in copies)
    others = only(files, {name for name in files.specs if carried and name.startswith(carried) and name not in shapes})
    listed = without(files, others.specs)
    refuse_quantised(listed.specs)
    check_names(listed.specs, shapes, where)
    check_shapes(listed.specs, shapes, config, lambda c: dialect_shapes(c, dialect), where)
    reader: Reader = Mapped(listed, copies)
    if others.specs:
        reader = Union(reader, others)
    return HfSide(
        directory=directory,
        hf_config=head.hf_config,
        model=model,
        config=config,
        tie=tie,
        copy=copy,
        dialect=dialect,
        reader=reader,
        chunks=chunks,
        files=seen,
        left_behind=left_behind,
        head_restated=head.restated,
        quantization=quantization,
        step=step,
    )


def tied_copy(raw: Reader, hf_config: Mapping[str, Any]) -> str:
    """The output layer of a model that its config calls tied: saved by some trainers all the same. "" without."""
    output = next((name for name in raw.specs if name.endswith(OUTPUT_LAYER)), "")
    embedding = next((name for name in raw.specs if name.endswith(EMBEDDING)), "")
    stated = stated_tie(hf_config)
    return output if embedding and stated is not None and stated.tied else ""


def dialect_shapes(config: ModelConfig, dialect: Dialect) -> dict[str, Shape]:
    """Names and shapes of a model in a dialect."""
    return hulls(copy.left for copy in dialect_copies(config, dialect))


def refuse_quantised(specs: Mapping[str, TensorSpec]) -> None:
    """Refuse weights that are no plain floats.

    Raises:
        MismatchError: naming the tensor.
    """
    for name, spec in specs.items():
        if spec.dtype not in FLOATS:
            raise MismatchError(
                f"{shown(name)} has dtype {spec.dtype}", "Only plain, unquantised floating-point weights are converted."
            )


@paused()
def in_dialect(reader: Reader, config: ModelConfig, dialect: Dialect) -> Mapped:
    """Tensors under the Hub's names, in another dialect."""
    return Mapped(reader, flipped(dialect_copies(config, dialect)))
