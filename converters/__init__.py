"""vlconv's public API. Every function is imported when it is called, so that importing the package costs nothing.

Paths may be text. What goes wrong is raised as a subclass of VlconvError, each exported here. How far a command is, an
Observer is told; see there.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import (
    ChangedError,
    CorruptError,
    MismatchError,
    MissingLibrary,
    NotACheckpoint,
    NotComparable,
    OptionError,
    RankError,
    ReadError,
    ReferenceFault,
    SourceError,
    TargetError,
    UnsupportedError,
    VlconvError,
)
from .options import Hf2McoreOptions, Mcore2HfOptions, Mcore2McoreOptions, VerifyOptions
from .report import Difference, Fact, Observer, Phase, Report, Silent

if TYPE_CHECKING:
    from .layouts.names import NamePair

__all__ = [
    "ChangedError",
    "CorruptError",
    "Difference",
    "Fact",
    "Hf2McoreOptions",
    "Mcore2HfOptions",
    "Mcore2McoreOptions",
    "MismatchError",
    "MissingLibrary",
    "NotACheckpoint",
    "NotComparable",
    "Observer",
    "OptionError",
    "Phase",
    "RankError",
    "ReadError",
    "ReferenceFault",
    "Report",
    "Silent",
    "SourceError",
    "TargetError",
    "UnsupportedError",
    "VerifyOptions",
    "VlconvError",
    "hf2mcore",
    "mcore2hf",
    "mcore2mcore",
    "names",
    "ranks",
    "verify",
]

AnyPath = str | PathLike[str]

_DEFAULT_MCORE2HF = Mcore2HfOptions()
_DEFAULT_HF2MCORE = Hf2McoreOptions()
_DEFAULT_MCORE2MCORE = Mcore2McoreOptions()
_DEFAULT_VERIFY = VerifyOptions()


def mcore2hf(
    source: AnyPath, target: AnyPath, options: Mcore2HfOptions = _DEFAULT_MCORE2HF, observer: Observer | None = None
) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory; see convert.mcore2hf."""
    from .conversion.convert import mcore2hf

    return mcore2hf(Path(source), Path(target), options, observer or Silent())


def hf2mcore(
    source: AnyPath, target: AnyPath, options: Hf2McoreOptions = _DEFAULT_HF2MCORE, observer: Observer | None = None
) -> Report:
    """Convert a Hugging Face directory to a Megatron checkpoint; see convert.hf2mcore."""
    from .conversion.convert import hf2mcore

    return hf2mcore(Path(source), Path(target), options, observer or Silent())


def mcore2mcore(
    source: AnyPath,
    target: AnyPath,
    options: Mcore2McoreOptions = _DEFAULT_MCORE2MCORE,
    observer: Observer | None = None,
) -> Report:
    """Write a Megatron checkpoint's weights in another format, topology or layout; see convert.mcore2mcore."""
    from .conversion.convert import mcore2mcore

    return mcore2mcore(Path(source), Path(target), options, observer or Silent())


def verify(
    a: AnyPath, b: AnyPath | None = None, options: VerifyOptions = _DEFAULT_VERIFY, observer: Observer | None = None
) -> Report:
    """Compare two models of either side, or prove the round trip of one; see verification.verify."""
    from .verification.verify import verify

    return verify(a, b, options, observer or Silent())


def names(layout: str, model: str) -> list[NamePair]:
    """Both full names of every pair of tensors that a layout maps; see layouts.names.name_pairs."""
    from .layouts.names import name_pairs

    return list(name_pairs(layout, model))
