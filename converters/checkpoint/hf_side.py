"""A Hugging Face directory, opened: its model, and a Reader of its tensors under the Hub's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.hf_config import read_config
from ..config.output_layer import why_without
from ..config.quantization import Quantization, split_quantization
from ..errors import MismatchError, shown, shown_path
from ..formats import is_mcore, safetensors
from ..formats.chunks import ChunkReader
from ..formats.directory.locate import one_or_more
from ..formats.directory.mistaken import taken_for_hf
from ..formats.directory.unfinished import check_finished
from ..formats.opened import Summed
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
from .shape_errors import check_shapes

if TYPE_CHECKING:
    from .lora.adapter_side import AdapterSide
    from .lora.peft_side import PeftAdapter

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
        uncut: rows of vocabulary that are there beyond those that config.json counts, and that `config` counts.
        stale: how the output layer of a tied model differs from its embedding, of which it is to be a copy; "" where it
            does not, or there is none.
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
    uncut: int = 0
    stale: str = ""
    adapter: AdapterSide | PeftAdapter | None = None

    @property
    def checkpoints(self) -> tuple[Summed, ...]:
        """The Megatron checkpoint that an adapter is from."""
        return self.adapter.checkpoints if self.adapter else ()

    @property
    def restated(self) -> bool:
        """Whether `hf_config` is another than the directory's."""
        return self.head_restated or self.quantization is not None


class HfReading(NamedTuple):
    """How a Hugging Face directory is read.

    Attributes:
        experts_form: how its experts are oriented, where their shape cannot show it.
        mtp: what becomes of a multi-token-prediction head; None: what is there.
        carried: prefixes of names that may be there though the model does not list them.
        no_output_layer: an embedding model has none.
        fp8_as: the dtype that FP8 tensors are made plain in: "bfloat16" or "float32".
        uncut: vocabulary padding is no fault: the model is taken to have as many tokens as there are rows.
    """

    experts_form: ExpertsForm | None = None
    mtp: MtpAsIs | None = None
    carried: tuple[str, ...] = ()
    no_output_layer: bool = False
    fp8_as: str = "bfloat16"
    uncut: bool = False

    def may_go_along(self, name: str) -> bool:
        """Whether a tensor may be there though the model does not list it."""
        return bool(self.carried) and name.startswith(self.carried)


AS_IT_IS = HfReading()


@paused()
def open_hf_side(directory: Path, reading: HfReading = AS_IT_IS) -> HfSide:
    """Open a Hugging Face directory; every name and shape is checked against its config.

    Args:
        directory: with config.json and safetensors weights.
        reading: how.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    side = hf_side_by_headers(directory, reading)
    if side.copy:
        embedding = next(name for name in side.chunks.specs if name.endswith(EMBEDDING))
        with side.files.noting(), naming_config(directory, WAY_OUT):
            check_tied_copy(side.chunks, embedding, side.copy)
    return side


@paused()
def hf_side_by_headers(directory: Path, reading: HfReading = AS_IT_IS) -> HfSide:
    """As `open_hf_side`, and no tensor is read: that a tied model's output layer is a copy is not checked."""
    check_finished(directory)
    if mistaken := taken_for_hf(directory, one_or_more(is_mcore)):
        raise mistaken
    files = SeenFiles()
    with files.noting():
        return _open(directory, reading, files)


def _open(directory: Path, reading: HfReading, seen: SeenFiles) -> HfSide:
    hf_config, quantization = split_quantization(read_config(directory))
    model, where = model_for(hf_config), shown_path(directory)
    chunks = safetensors.open_hf(directory)
    scaled = scaled_tensors(chunks.specs, quantization, directory) if quantization else []
    step = Dequantised(chunks, scaled, reading.fp8_as) if quantization else None
    raw: Reader = step or chunks
    refuse_quantised({name: spec for name, spec in raw.specs.items() if not reading.may_go_along(name)})
    tie, copy = _tie(directory, hf_config, raw, reading)
    if step and copy in step.computed:
        raise MismatchError(f"{where}: {shown(copy)} is FP8, in a tied model", "Take it out: the embedding serves.")
    named = model.config_of(hf_config, tie)
    head = settle_head(named, hf_config, raw.specs, reading.mtp, where=where, whose="config.json", ways=("drop",))
    config = _with_rows(head.config, raw.specs) if reading.uncut else head.config
    left_behind = [name for name in raw.specs if head.dropped and name.startswith(MTP)]
    files = without(raw, {*left_behind, *([copy] if copy else [])})
    shapes = {name: spec.shape for name, spec in files.specs.items()}
    dialect = read_dialect(shapes, config, reading.experts_form)
    return HfSide(
        directory=directory,
        hf_config=head.hf_config,
        model=model,
        config=config,
        tie=tie,
        copy=copy,
        dialect=dialect,
        reader=_on_the_hub(files, config, dialect, reading, where),
        chunks=chunks,
        files=seen,
        left_behind=left_behind,
        head_restated=head.restated,
        quantization=quantization,
        step=step,
        uncut=config.text.vocab - head.config.text.vocab,
    )


def _with_rows(config: ModelConfig, specs: Mapping[str, TensorSpec]) -> ModelConfig:
    """The model with as many tokens as the embedding and the output layer have rows, if those are more."""
    ends = (*EMBEDDING, *OUTPUT_LAYER)
    rows = {spec.shape[0] for name, spec in specs.items() if name.endswith(ends) and len(spec.shape) == 2}
    more = len(rows) == 1 and max(rows) > config.text.vocab
    return replace(config, text=replace(config.text, vocab=max(rows))) if more else config


def _tie(directory: Path, hf_config: Mapping[str, Any], raw: Reader, reading: HfReading) -> tuple[Tie, str]:
    """Whether the embeddings are tied, and the output layer that is there all the same."""
    without_output = why_without(directory, reading.no_output_layer)
    with naming_config(directory, WAY_OUT):
        copy = tied_copy(raw, hf_config)
        output_layer = not copy and any(name.endswith(OUTPUT_LAYER) for name in raw.specs)
        return decide_tie(hf_config, output_layer, without_output), copy


def _on_the_hub(files: Reader, config: ModelConfig, dialect: Dialect, reading: HfReading, where: str) -> Reader:
    """The tensors under the Hub's names, once names and shapes are the model's."""
    copies = dialect_copies(config, dialect)
    shapes = hulls(copy.left for copy in copies)
    others = only(files, {name for name in files.specs if reading.may_go_along(name) and name not in shapes})
    listed = without(files, others.specs)
    refuse_quantised(listed.specs)
    check_names(listed.specs, shapes, where)
    check_shapes(listed.specs, shapes, config, lambda c: dialect_shapes(c, dialect), where)
    reader = Mapped(listed, copies)
    return Union(reader, others) if others.specs else reader


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
