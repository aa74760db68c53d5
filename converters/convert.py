"""mcore2hf and hf2mcore: open a side, look at it through the table, plan the files, write them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from .cast import Cast
from .config.hf_config import config_json, config_to_write
from .config.reference import side_files
from .errors import CorruptError, MismatchError
from .formats import hf
from .formats.chunks import ChunkReader
from .formats.files import OutFile
from .formats.torch_dist_write import plan_torch_dist
from .layouts import to_write
from .layouts.layout import Layout
from .locate import TRACKER
from .models.hf_dialects import Dialect
from .options import Hf2McoreOptions, Mcore2HfOptions, McoreOutput
from .output import OutputDirectory
from .report import Observer, Report
from .sides import HfSide, McoreSide, from_hf, in_dialect, mapped_table, open_hf_side, open_mcore_side
from .tell import (
    describe_checksums,
    describe_dialect,
    describe_hf,
    describe_mcore,
    describe_output,
    describe_side_files,
    describe_specials,
    describe_written,
)
from .tensors import Reader
from .vocabulary import padded
from .write import write_files


def mcore2hf(source: Path, target: Path, options: Mcore2HfOptions, observer: Observer) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory.

    Args:
        source: the checkpoint's directory, or one above it.
        target: the directory to write; appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = open_mcore_side(
        source,
        reference=options.reference,
        revision=options.revision,
        iteration=options.iteration,
        layout=options.layout,
        divisor=options.make_vocab_size_divisible_by,
        trust_reference=options.trust_reference,
    )
    if options.strict:
        refuse_warned(side)
    dialect = Dialect(options.experts, options.hf_names)
    reader = cast(in_dialect(side.as_hf, side.config, dialect), options.dtype)
    config = config_json(config_to_write(side.reference.config, side.model, tied=side.config.text.tied, dtype=main_dtype(reader)))
    files = [*hf.plan_hf(reader.specs, options.max_shard_size), OutFile("config.json", len(config), literals=[(0, config)])]
    beside = side_files(side.reference.directory)
    report = Report("mcore2hf", "planned")
    describe_mcore(report, side, options.dtype)
    describe_dialect(report, side.config, dialect)
    describe_output(report, target, reader, files, threads_of(options.threads), side.as_hf)
    describe_side_files(report, beside)
    sources = [source, *([side.reference.directory] if side.reference.directory else [])]
    return run(report, reader, files, target, sources, observer, options, {"": beside.copy}, side.chunks)


def hf2mcore(source: Path, target: Path, options: Hf2McoreOptions, observer: Observer) -> Report:
    """Convert a Hugging Face directory to a Megatron checkpoint.

    Args:
        source: a Hugging Face directory with safetensors weights.
        target: the directory to write, with `release/` (or `iter_…/`) and a tracker file in it; appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = open_hf_side(source, options.experts_form)
    layout = to_write(options.layout, side.config.model_type)
    rows = padded(side.config.text.vocab, options.make_vocab_size_divisible_by or 1)
    reader = from_hf(cast(side.reader, options.dtype), mapped_table(layout, side.config, rows))
    files, folder = mcore_files(reader, side, layout, options)
    beside = side_files(source)
    report = Report("hf2mcore", "planned")
    describe_hf(report, side)
    report.fact("layout", f"{layout.name} ({layout.trainers})", layout=layout.name)
    report.fact("vocabulary", f"{rows - side.config.text.vocab} rows of padding, {rows} in all", padding_rows=rows - side.config.text.vocab, rows=rows)
    describe_output(report, target / folder, reader, files, threads_of(options.threads), reader)
    describe_side_files(report, beside)
    return run(report, reader, files, target, [source], observer, options, {"huggingface": [source / "config.json", *beside.copy]})


def mcore_files(reader: Reader, side: HfSide, layout: Layout, options: Hf2McoreOptions) -> tuple[list[OutFile], str]:
    """All files of a Megatron checkpoint with its tracker, and the folder that the tracker names."""
    word = "release" if options.iteration is None else str(options.iteration)
    folder = "release" if options.iteration is None else f"iter_{options.iteration:07d}"
    files = plan_torch_dist(reader.specs, layout.stacks(side.config), layout.extra_state(side.config), options.iteration or 0)
    for file in files:
        file.name = f"{folder}/{file.name}"
    return [*files, OutFile(TRACKER, len(word), literals=[(0, word.encode())])], folder


def run(
    report: Report,
    reader: Reader,
    files: Sequence[OutFile],
    target: Path,
    sources: Sequence[Path],
    observer: Observer,
    options: Mcore2HfOptions | McoreOutput,
    beside: dict[str, list[Path]],
    chunks: ChunkReader | None = None,
) -> Report:
    """Write what was planned, unless it is a dry run. A target that cannot be written is refused before the plan is shown.

    Args:
        report: of the plan; completed and returned.
        reader: the tensors under the names of `files`.
        sources: directories that the target must not touch.
        beside: folder below the target -> files to copy there byte for byte.
        chunks: the reader of the source, where its format keeps checksums.
    """
    copied = [path for paths in beside.values() for path in paths]
    output = OutputDirectory(target, sources, overwrite=options.overwrite, need=sum(f.size for f in files) + sum(p.stat().st_size for p in copied))
    if options.dry_run:
        output.check()
        observer.planned(report)
        return report
    with output as partial:
        observer.planned(report)
        begin = time.monotonic()
        specials = write_files(reader, files, partial, threads_of(options.threads), observer)
        describe_specials(report, specials)
        if options.strict and specials.found:
            raise CorruptError(f"not all weights are numbers: {specials}", "Nothing was written. Without --strict they are converted as they are, and counted.")
        for folder, paths in beside.items():
            (partial / folder).mkdir(exist_ok=True)
            for path in paths:
                shutil.copyfile(path, partial / folder / path.name)
    if output.leftover:
        report.warnings.append(f"what was in {target} before could not be removed: it is in {output.leftover}")
    if chunks:
        describe_checksums(report, chunks)
    describe_written(report, files, len(copied), time.monotonic() - begin)
    report.status = "done"
    return report


def refuse_warned(side: McoreSide) -> None:
    """--strict takes no checkpoint whose ranks disagree.

    Raises:
        MismatchError: tensors that ranks hold whole differ among them.
    """
    if side.opened.warnings:
        listed = "\n".join(f"  {line}" for line in side.opened.warnings[:10])
        raise MismatchError(f"{side.directory}: ranks disagree:\n{listed}", "Without --strict the first one is taken, with a warning.")


def cast(reader: Reader, dtype: str | None) -> Reader:
    """The reader, with --dtype applied."""
    return Cast(reader, dtype) if dtype else reader


def main_dtype(reader: Reader) -> str:
    """The dtype of most bytes: what config.json states."""
    total: dict[str, int] = {}
    for spec in reader.specs.values():
        total[spec.dtype] = total.get(spec.dtype, 0) + spec.nbytes
    return max(total, key=lambda d: total[d])


def threads_of(asked: int | None) -> int:
    """How many windows at a time: enough that reads and writes overlap, few enough that memory stays small."""
    return asked or max(2, min(4, os.cpu_count() or 2))
