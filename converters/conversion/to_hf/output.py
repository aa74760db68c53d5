"""The files of a Hugging Face directory to write, whatever its weights come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...adapters.merged import Merged
from ...checkpoint.describe_model import describe_dialect
from ...checkpoint.fp8.form import Fp8Form, describe_fp8, fp8_form
from ...checkpoint.lora.describe_adapter import describe_merging
from ...config.hf_config import config_json, config_to_write
from ...config.quantization import with_quantization
from ...config.reference import SideFiles, side_files
from ...formats import safetensors
from ...formats.directory.contents import CONFIG
from ...formats.output_file import OutFile, small_file
from ...formats.seen_files import SeenFiles
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...models.shared.hf_dialects import Dialect, one_by_one_is_read
from ...options import Mcore2HfOptions
from ...report import Report
from ...tensors.counting import Rounding
from ...tensors.dtypes import main_dtype
from ...tensors.spec import Reader
from ...workers import workers_of
from ..outcome import NEEDED
from ..summary import describe_output, describe_side_files

ONE_BY_ONE = (
    "experts are written one by one: vLLM and SGLang read this form, transformers 4.57 to 5.24 makes up its experts or "
    "fails; leave --experts out for transformers"
)


class Form(NamedTuple):
    """How a directory spells its tensors.

    Attributes:
        dialect: names, and how experts are held.
        fp8: whose form its weights have; None: they are plain.
    """

    dialect: Dialect
    fp8: Fp8Form | None


class HfWeights(NamedTuple):
    """The weights of a directory to write, and the model that they are.

    Attributes:
        reader: the tensors in its dialect; none of them is FP8 yet.
        counted: the same under the Hub's names, whose elements are its parameters.
        config: the model.
        hf_config: the config.json that it begins from.
        beside: the directory whose tokenizer files go along; None: there is none.
        files: that were opened; those that go along are added.
        unlisted: names of tensors that no model here lists.
        steps: what computes below `reader`.
        merged: what an adapter is merged by; None: there is none.
    """

    reader: Reader
    counted: Reader
    config: ModelConfig
    hf_config: Mapping[str, Any]
    beside: Path | None
    files: SeenFiles
    unlisted: Collection[str] = ()
    steps: Sequence[Rounding] = ()
    merged: Merged | None = None


class HfOutput(NamedTuple):
    """What is written.

    Attributes:
        reader: the tensors under the names of `files`.
        files: of the directory, config.json among them.
        steps: all that computes.
        beside: files that go along.
    """

    reader: Reader
    files: list[OutFile]
    steps: list[Rounding]
    beside: SideFiles


def form_of(options: Mcore2HfOptions, config: ModelConfig, files: SeenFiles, *, head_packed: bool) -> Form:
    """The form that is asked for.

    Args:
        options: of the conversion.
        config: the model to write.
        files: to which those of --fp8-like are added.
        head_packed: the experts of a multi-token-prediction head are packed in what is written like the release.

    Raises:
        ReferenceFault, MismatchError: see `fp8_form`.
    """
    if options.fp8_like:
        with files.noting():
            fp8 = fp8_form(str(options.fp8_like), config)
        return Form(fp8.dialect, fp8)
    return Form(Dialect(options.experts, options.hf_names, head_packed), None)


def hf_output(weights: HfWeights, form: Form, options: Mcore2HfOptions) -> HfOutput:
    """The files of the directory, and what they are read from.

    Raises:
        MismatchError: the tensors are not those of the form.
    """
    reader, steps = weights.reader, [*weights.steps]
    plain = form.fp8.plain_specs if form.fp8 else reader.specs
    dtype = main_dtype({name: spec for name, spec in plain.items() if name not in weights.unlisted})
    config = config_file(CONFIG, weights.hf_config, weights.config, dtype, form.fp8)
    if form.fp8:
        wide, reader = form.fp8.written(reader)
        steps += [wide, reader]
    files = [*safetensors.plan_hf(reader.specs, options.shard_bytes), config]
    with weights.files.noting():
        beside = side_files(weights.beside, model_of(weights.config).traits.tower)
    return HfOutput(reader, files, steps, beside)


def describe_hf_output(
    report: Report, weights: HfWeights, form: Form, output: HfOutput, target: Path, options: Mcore2HfOptions
) -> None:
    """What is said of it: what is computed, in which form it is, how much it is, and what goes along."""
    if weights.merged:
        describe_merging(report, weights.merged)
    if form.fp8:
        describe_fp8(report, form.fp8)
    describe_dialect(report, weights.config, form.dialect)
    if weights.config.text.experts and not one_by_one_is_read(form.dialect, model_of(weights.config).traits):
        report.warnings.append(ONE_BY_ONE)
    workers = workers_of(options.threads, options.memory_bytes)
    describe_output(report, target, output.reader, output.files, workers, weights.counted)
    describe_side_files(report, output.beside, NEEDED)


def config_file(
    name: str, hf_config: Mapping[str, Any], config: ModelConfig, dtype: str, fp8: Fp8Form | None = None
) -> OutFile:
    """The config.json that goes with a model's weights.

    Args:
        name: of the file.
        hf_config: the one that it begins from.
        config: the model.
        dtype: of most weights; of FP8 ones, of those that stay plain.
        fp8: in whose form they are.
    """
    found = config_to_write(hf_config, model_of(config), tied=config.text.tied, dtype=dtype)
    return small_file(name, config_json(with_quantization(found, fp8.quantization) if fp8 else found))
