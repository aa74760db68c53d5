"""What a user is told first and last of a conversion: the result in one line, what to do next, what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoint.hf_side import HfSide
from ..checkpoint.mcore_side import McoreSide
from ..errors import shown, shown_path, sized
from ..formats.directory.locate import iteration_of
from ..layouts.layout import Layout
from ..models import release_of, repository_of
from ..models.shared.config import ModelConfig
from ..options import McoreSource, McoreTarget, OutputOptions
from ..report import Report, Step

NEEDED = ("tokenizer", "preprocessor_config.json", "video_preprocessor_config.json")
"""Of what may be missing beside the weights, that without which nothing loads them; each as SideFiles names it."""


def describe_result(report: Report, target: Path, config: ModelConfig, origin: str) -> None:
    """The result in one line, once the output is described.

    Args:
        report: of a planned conversion.
        target: the directory to write.
        config: of the model in it.
        origin: what it is made of, as `origin_of` says it.
    """
    release = release_of(config)
    name = release.name if release else f"a {config.model_type} of no release's sizes"
    tensors, nbytes = report.data["tensors"], report.data["bytes"]
    report.result = f"{shown_path(target)}: {tensors} tensors, {sized(nbytes)}, {name}, from {origin}"


def origin_of(directory: Path) -> str:
    """A checkpoint's directory in words: "iteration 1000 of checkpoints"; "iteration 1000" in the one we are in."""
    number = iteration_of(directory)
    if number is None:
        return shown_path(directory)
    folder = next((d for d in (directory, *directory.parents[:2]) if iteration_of(d.parent) is None), directory)
    save = folder.parent
    return f"iteration {number}" + (f" of {shown_path(save)}" if save != Path() else "")


def describe_hf_steps(report: Report, side: McoreSide, target: Path, asked: McoreSource, dtype: str | None) -> None:
    """What to do with a Hugging Face directory: serve it, upload it, verify it; nothing that it is not ready for."""
    out = quoted(target)
    missing = [name for name in report.data.get("missing_side_files", []) if name in NEEDED]
    if missing:
        _tell_missing(report, side, target, missing)
    else:
        _serve(report, target)
    if not dtype:
        source = side.apart.directory if side.apart else side.directory
        base = ["--base", quoted(side.directory)] if side.apart else []
        words = ["vlconv verify", quoted(source), out, *base, *as_read(asked)]
        report.steps.append(Step("verify", " ".join(words)))


def describe_merged_steps(report: Report, side: HfSide, target: Path, asked: McoreSource, dtype: str | None) -> None:
    """What to do with an adapter merged into a Hugging Face directory: serve it, upload it, verify it."""
    missing = [name for name in report.data.get("missing_side_files", []) if name in NEEDED]
    if missing:
        what = f"vLLM and transformers cannot load {shown_path(target)} until these are copied into it"
        report.last = f"{what}: {', '.join(missing)}"
        report.warnings.append(report.last)
    else:
        _serve(report, target)
    if not dtype and side.adapter:
        words = [quoted(side.adapter.directory), quoted(target), "--base", quoted(side.directory)]
        report.steps.append(Step("verify", " ".join(["vlconv verify", *words, *as_read(asked)])))


def _serve(report: Report, target: Path) -> None:
    out = quoted(target)
    report.steps.append(Step("serve", f"vllm serve {out}"))
    report.steps.append(Step("upload", f"hf upload USER/{shlex.quote(shown(target.name or 'NAME'))} {out}"))


def _tell_missing(report: Report, side: McoreSide, target: Path, missing: Sequence[str]) -> None:
    found = side.known.reference
    repository = shown(found.hub_id) if found.hub_id and "tokenizer" not in missing else repository_of(side.whole)
    has = f"; {repository} on the Hub has them" if repository else ""
    reader = "AutoProcessor" if side.model.traits.tower else "AutoTokenizer"
    report.last = (
        f"vLLM and {reader} cannot load {shown_path(target)} until these are copied into it: {', '.join(missing)}{has}"
    )
    report.warnings.append(report.last)


def as_read(asked: McoreSource) -> Iterator[str]:
    """The options that say how a checkpoint is read, again."""
    if asked.layout:
        yield f"--layout {shlex.quote(shown(asked.layout))}"
    if asked.make_vocab_size_divisible_by:
        yield f"--make-vocab-size-divisible-by {round(asked.make_vocab_size_divisible_by)}"
    if asked.mtp:
        yield f"--mtp {shown(asked.mtp)}"
    for prefix in asked.carry or ():
        yield f"--carry {shlex.quote(shown(prefix))}"
    if asked.no_output_layer:
        yield "--no-output-layer"
    if asked.lora_alpha is not None:
        yield f"--lora-alpha {asked.lora_alpha:g}"


def describe_mcore_steps(
    report: Report, layout: Layout, source: HfSide | McoreSide, target: Path, folder: str, options: OutputOptions
) -> None:
    """What to do with a Megatron checkpoint: load it with the layout's trainers, verify it.

    Args:
        report: told.
        layout: that it is written in.
        source: what it is made of.
        target: the directory.
        folder: the checkpoint's folder in it.
        options: of the conversion.
    """
    assert isinstance(options, McoreTarget)
    out = quoted(target)
    ways = layout.load if options.format == "torch_dist" else (("", "--load {0}"),)
    for trainer, way in ways:
        report.steps.append(Step("load", way.format(out, shown(folder)) + f"  ({trainer})" * bool(trainer)))
    if not options.dtype:
        made = quoted(target / folder) if options.as_iteration is not None else out
        report.steps.append(Step("verify", f"vlconv verify {quoted(source.directory)} {made}"))


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(shown_path(path))
