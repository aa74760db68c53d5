"""A Hugging Face directory, from config.json and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..checkpoint.hf_side import HfSide, hf_side_by_headers
from ..config.hf_config import read_config
from ..config.reference import side_files
from ..errors import SourceError, VlconvError, shown
from ..formats import safetensors
from ..formats.directory.unfinished import check_finished
from ..models import model_for
from ..tensors.spec import TensorSpec
from .commands import of_hf
from .inspection import Inspection, ModelFound, Needed
from .manifest import made_by
from .models import of_config
from .places import file_bytes


def hugging_face(path: Path) -> Inspection:
    """Describe a Hugging Face directory as far as it goes.

    Raises:
        NotACheckpoint: it is an unfinished output.
    """
    check_finished(path)
    side, fault = _side(path)
    tensors = tuple(side.chunks.specs.values()) if side else _tensors(path)
    manifest, warnings = made_by(path)
    return Inspection(
        path=path,
        directory=path,
        kind="huggingface",
        title="Hugging Face safetensors" if safetensors.holds(path) else "Hugging Face directory without weights",
        format="hf",
        form=_form(side),
        model=of_config(side.config) if side else _model(path),
        tensors=tensors,
        scales=frozenset(one.scale for one in side.step.scaled) if side and side.step else frozenset(),
        file_bytes=file_bytes(path),
        needs=_needs(path, side),
        converts=fault is None,
        why_not=fault.what if fault else "",
        hint=fault.hint if fault else "",
        manifest=manifest,
        next=of_hf(path, manifest is not None) if side else (),
        warnings=warnings,
    )


def _side(path: Path) -> tuple[HfSide | None, VlconvError | None]:
    try:
        return hf_side_by_headers(path), None
    except VlconvError as fault:
        return None, fault


def _form(side: HfSide | None) -> str:
    if side is None:
        return ""
    said = [f"experts as {side.dialect.experts}"] * bool(side.config.text.experts)
    if side.step and side.quantization:
        scales, count = " and ".join(side.step.scale_dtypes), len(side.step.computed)
        said.append(f"{count} tensors in {side.quantization.title} with {scales} scales")
    return "; ".join(said)


def _tensors(path: Path) -> tuple[TensorSpec, ...]:
    """Those of a model that is not converted, as far as the headers of its files can be read."""
    with suppress(SourceError):
        return tuple(safetensors.open_hf(path).specs.values())
    return ()


def _config(path: Path) -> Mapping[str, Any]:
    with suppress(SourceError):
        return read_config(path)
    return {}


def _model(path: Path) -> ModelFound | None:
    """The model of a directory that does not convert, by its config.json."""
    hf_config = _config(path)
    with suppress(VlconvError):
        return of_config(model_for(hf_config).config(dict(hf_config)))
    kind = hf_config.get("model_type")
    return ModelFound(shown(kind), {}, "") if isinstance(kind, str) else None


def _needs(path: Path, side: HfSide | None) -> Needed:
    """What is missing beside the weights."""
    sees = side.model.traits.tower if side else "vision_config" in _config(path)
    with suppress(SourceError):
        return Needed(path, "the directory itself", files=tuple(side_files(path, sees).missing))
    return Needed(path, "the directory itself")
