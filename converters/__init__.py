"""vlconv's public API. Every function is imported when it is called, so that importing the package costs nothing."""

from __future__ import annotations

from pathlib import Path

from .errors import VlconvError
from .options import Hf2McoreOptions, Mcore2HfOptions, Mcore2McoreOptions, VerifyOptions
from .report import Difference, Observer, Report, Silent

__all__ = [
    "Difference",
    "Hf2McoreOptions",
    "Mcore2HfOptions",
    "Mcore2McoreOptions",
    "Observer",
    "Report",
    "Silent",
    "VerifyOptions",
    "VlconvError",
    "hf2mcore",
    "mcore2hf",
    "mcore2mcore",
    "verify",
]

_DEFAULT_MCORE2HF = Mcore2HfOptions()
_DEFAULT_HF2MCORE = Hf2McoreOptions()
_DEFAULT_MCORE2MCORE = Mcore2McoreOptions()
_DEFAULT_VERIFY = VerifyOptions()


def mcore2hf(
    source: Path, target: Path, options: Mcore2HfOptions = _DEFAULT_MCORE2HF, observer: Observer | None = None
) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory; see convert.mcore2hf."""
    from .conversion.convert import mcore2hf

    return mcore2hf(source, target, options, observer or Silent())


def hf2mcore(
    source: Path, target: Path, options: Hf2McoreOptions = _DEFAULT_HF2MCORE, observer: Observer | None = None
) -> Report:
    """Convert a Hugging Face directory to a Megatron checkpoint; see convert.hf2mcore."""
    from .conversion.convert import hf2mcore

    return hf2mcore(source, target, options, observer or Silent())


def mcore2mcore(
    source: Path, target: Path, options: Mcore2McoreOptions = _DEFAULT_MCORE2MCORE, observer: Observer | None = None
) -> Report:
    """Write a Megatron checkpoint's weights in another format, topology or layout; see convert.mcore2mcore."""
    from .conversion.convert import mcore2mcore

    return mcore2mcore(source, target, options, observer or Silent())


def verify(
    a: Path, b: Path | None = None, options: VerifyOptions = _DEFAULT_VERIFY, observer: Observer | None = None
) -> Report:
    """Compare two models of either side, or prove the round trip of one; see verifying.verify."""
    from .verification.verify import verify

    return verify(a, b, options, observer or Silent())
