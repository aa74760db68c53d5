"""FP8 tensors of a Hugging Face directory and their scales: what config.json says held against what the files hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...config.quantization import FIELD, Quantization
from ...errors import MismatchError, shown, shown_path
from ...tensors.fp8.codes import E4M3, E8M0, SCALES
from ...tensors.fp8.scaled import Scaled
from ...tensors.spec import TensorSpec

MIXED = "Half a model in FP8 is read otherwise by every program: save it again, or correct modules_to_not_convert."
UNCLEAR = "config.json and weights belong to different models, or the quantiser left the job half done."


def scaled_tensors(specs: Mapping[str, TensorSpec], said: Quantization, directory: Path) -> list[Scaled]:
    """The FP8 tensors of a directory, each with its scales.

    Args:
        specs: every tensor in the files.
        said: what config.json says.
        directory: that they are in.

    Raises:
        MismatchError: an FP8 tensor without scales, or scales of another shape or without one; one that config.json
            calls not quantised; a plain one among FP8 ones of its kind; or none at all.
    """
    found = [_scaled(spec, specs, said, directory) for spec in specs.values() if spec.dtype == E4M3]
    if not found:
        raise MismatchError(
            f"{shown_path(directory)}: config.json describes quantised weights ({FIELD}), and none of its tensors is "
            f"{E4M3}",
            f"If they are plain weights, remove {FIELD} from config.json.",
        )
    scales = {one.scale for one in found}
    stray = next((name for name in specs if name.endswith(said.suffix) and name not in scales), "")
    if stray:
        raise MismatchError(f"{shown_path(directory)}: {shown(stray)} are scales of no FP8 tensor", UNCLEAR)
    _check_whole(specs, {one.name for one in found}, scales, said, directory)
    return found


def _scaled(spec: TensorSpec, specs: Mapping[str, TensorSpec], said: Quantization, directory: Path) -> Scaled:
    one = Scaled(spec.name, said.scale_of(spec.name), said.block)
    if said.keeps(spec.name):
        raise MismatchError(
            f"{shown_path(directory)}: {shown(spec.name)} is {E4M3}, and {FIELD} names it as one that is not quantised",
            UNCLEAR,
        )
    scale = specs.get(one.scale)
    if scale is None:
        raise MismatchError(
            f"{shown_path(directory)}: {shown(spec.name)} is {E4M3}, and its scales {shown(one.scale)} are missing",
            UNCLEAR,
        )
    if len(spec.shape) not in (2, 3) or 0 in spec.shape:
        raise MismatchError(
            f"{shown_path(directory)}: {shown(spec.name)} {shown(list(spec.shape))} is {E4M3}, and no "
            "matrix or stack of them",
            UNCLEAR,
        )
    if scale.dtype not in SCALES:
        raise MismatchError(
            f"{shown_path(directory)}: {shown(one.scale)} has dtype {scale.dtype}",
            f"Scales are {', '.join(SCALES[:-1])} or {E8M0}.",
        )
    want = one.scale_shape(spec.shape)
    if scale.shape != want:
        raise MismatchError(
            f"{shown_path(directory)}: {shown(one.scale)} is {shown(list(scale.shape))} where {shown(spec.name)} "
            f"{shown(list(spec.shape))} has {said.title}: {list(want)}",
            UNCLEAR,
        )
    return one


def _check_whole(
    specs: Mapping[str, TensorSpec], quantised: set[str], scales: set[str], said: Quantization, directory: Path
) -> None:
    """Of tensors that differ by their numbers alone, either all are FP8, or the config names those that are not."""
    kinds = {kind: name for name, kind in _kinds(quantised)}
    for name, kind in _kinds(name for name in specs if name not in quantised and name not in scales):
        if kind in kinds and not said.may_keep(name):
            raise MismatchError(
                f"{shown_path(directory)}: {shown(name)} is {specs[name].dtype}, {shown(kinds[kind])} is "
                f"{E4M3}, and {FIELD} does not say that it is not quantised",
                MIXED,
            )


def _kinds(names: set[str] | Iterator[str]) -> Iterator[tuple[str, str]]:
    """Each name, and what it has in common with those of other layers and experts."""
    for name in names:
        yield name, _NUMBER.sub(".#", name)


_NUMBER = re.compile(r"\.\d+(?=\.)")
