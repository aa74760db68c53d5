"""verify --like: a Hugging Face directory that another tool wrote, held against a model that it is to be like.

Headers and config alone; numbers are read of a tied model's second output layer, and of nothing else.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import NotComparable, shown_path
from ...formats import is_mcore
from ...formats.open_files import is_dir, is_file
from ...options import VerifyOptions
from ...report import Observer, Report
from ..side_path import SidePath, refuse_same
from .config_fields import Described, read_described, tell_config
from .fp8 import check_comparable, scales, tell_fp8
from .held import Held, read_held
from .names import Expected, expected, shapes_of, tell_dtypes, tell_names, tell_shapes
from .promised import tell_head, tell_tie
from .reference import Like, open_like
from .side import tell_side_files


def held_like(report: Report, named: SidePath, options: VerifyOptions, observer: Observer) -> Report:
    """Hold a directory against the reference of --like.

    Args:
        report: is given the findings.
        named: the directory.
        options: with `like`.
        observer: is told the plan.

    Returns:
        the report; "different" if anything would be served wrong, or not at all.

    Raises:
        NotComparable: it is no Hugging Face directory, or the reference cannot be had.
    """
    assert options.like is not None
    directory = named.path
    _check(directory)
    like = open_like(options.like, options.revision)
    refuse_same(directory, like.directory)
    report.result = f"{shown_path(directory)} held against {shown_path(like.directory)}"
    weights = "config.json and the headers of its weights" if like.dtypes else "config.json, without weights"
    report.fact("like", f"{shown_path(like.directory)}, {weights}", like=str(like.directory))
    observer.planned(report)
    if options.dry_run:
        return report
    held, ours, want = _looked_at(directory, like)
    report.findings = sorted(held.findings, key=lambda found: found.severity != "wrong")
    _describe(report, directory, held, ours, want)
    return report


def _check(directory: Path) -> None:
    if not is_dir(directory):
        raise NotComparable(f"{shown_path(directory)} is no directory", "Give a Hugging Face directory.")
    if is_mcore(directory):
        raise NotComparable(
            f"{shown_path(directory)} is a Megatron checkpoint, and --like is about Hugging Face directories",
            "Compare it with one: vlconv verify CHECKPOINT HF.",
        )
    weights = any(entry.name.endswith((".safetensors", ".safetensors.index.json")) for entry in directory.iterdir())
    if not weights and not is_file(directory / "config.json"):
        raise NotComparable(
            f"{shown_path(directory)} holds neither config.json nor safetensors weights",
            "Give a Hugging Face directory.",
        )


def _looked_at(directory: Path, like: Like) -> tuple[Held, Described, Expected]:
    held = read_held(directory)
    ours = read_described(held, directory)
    check_comparable(held, ours, like, directory)
    want = expected(held, like)
    same = ours.config is not None and ours.config.model_type == like.config.model_type and not like.quantization
    own = shapes_of(ours.config, want.dialect, held.specs) if same and ours.config else None
    told = scales(held, ours, like)
    tell_names(held, want, [prefix for prefix in _towers(like) if prefix], told)
    others = want._replace(shapes={name: shape for name, shape in want.shapes.items() if name not in told})
    tell_shapes(held, others, own if not like.quantization else want.shapes)
    tell_dtypes(held, want, quantised=like.quantization is not None)
    tell_fp8(held, ours, like)
    if ours.hf_config:
        tell_tie(held, directory, ours.hf_config, like)
        tell_head(held, ours.hf_config, ours.config, want, like)
    tell_config(held, ours, like)
    tell_side_files(held, directory, like)
    return held, ours, want


def _towers(like: Like) -> list[str]:
    later = like.model.traits.later_prefixes
    return [like.model.prefixes.vision, *([later.vision] if later else [])]


def _describe(report: Report, directory: Path, held: Held, ours: Described, want: Expected) -> None:
    wrong = sum(found.severity == "wrong" for found in report.findings)
    notes = len(report.findings) - wrong
    report.status = "different" if wrong else "same"
    more = f", {notes} to know" if notes else ""
    some = "1 thing is" if wrong == 1 else f"{wrong} things are"
    verdict = f"{some if wrong else 'nothing is'} wrong{more}"
    report.result = f"{shown_path(directory)}: {verdict}; no number was compared"
    there = len(want.shapes.keys() & held.specs.keys())
    nbytes = sum(spec.nbytes for spec in held.specs.values())
    report.fact(
        "looked_at",
        f"{len(held.specs)} tensors, {nbytes:,} bytes; {there} of {len(want.shapes)} that are expected are there",
        tensors=len(held.specs),
        expected=len(want.shapes),
        wrong=wrong,
        notes=notes,
    )
