"""vlconv's public API. Every function is imported when it is called, so that importing the package costs nothing.

Paths may be text. Options are keywords (`dtype="float32"`), an options object, or both: then a keyword stands in the
place of the object's field. What goes wrong is raised as a subclass of VlconvError, each exported here. How far a
command is, a function `progress(done, total)` is told, or an Observer; see there.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import (
    ChangedError,
    CorruptError,
    HubFault,
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
    scaled,
    sized,
)
from .inspection.blocks import Block
from .inspection.inspection import Inspection
from .options import (
    Hf2McoreOptions,
    InspectOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    PushOptions,
    RepairOptions,
    VerifyOptions,
)
from .options.asked import asked
from .report import Difference, Fact, Finding, HeatMap, Observer, Phase, Progress, Report, Silent, watching

if TYPE_CHECKING:
    from typing import Unpack

    from .layouts.names import NamePair
    from .options.keywords import (
        Hf2McoreKeywords,
        Mcore2HfKeywords,
        Mcore2McoreKeywords,
        RepairKeywords,
        VerifyKeywords,
    )

__all__ = [
    "Block",
    "ChangedError",
    "CorruptError",
    "Difference",
    "Fact",
    "Finding",
    "HeatMap",
    "Hf2McoreOptions",
    "HubFault",
    "InspectOptions",
    "Inspection",
    "Mcore2HfOptions",
    "Mcore2McoreOptions",
    "MismatchError",
    "MissingLibrary",
    "NotACheckpoint",
    "NotComparable",
    "Observer",
    "OptionError",
    "Phase",
    "Progress",
    "PushOptions",
    "RankError",
    "ReadError",
    "ReferenceFault",
    "RepairOptions",
    "Report",
    "Silent",
    "SourceError",
    "TargetError",
    "UnsupportedError",
    "VerifyOptions",
    "VlconvError",
    "hf2mcore",
    "inspect",
    "mcore2hf",
    "mcore2mcore",
    "names",
    "push",
    "ranks",
    "repair",
    "scaled",
    "sized",
    "trainers",
    "verify",
]

AnyPath = str | PathLike[str]

_DEFAULT_MCORE2HF = Mcore2HfOptions()
_DEFAULT_HF2MCORE = Hf2McoreOptions()
_DEFAULT_MCORE2MCORE = Mcore2McoreOptions()
_DEFAULT_PUSH = PushOptions()
_DEFAULT_REPAIR = RepairOptions()
_DEFAULT_VERIFY = VerifyOptions()
_DEFAULT_INSPECT = InspectOptions()


def mcore2hf(
    source: AnyPath,
    target: AnyPath,
    options: Mcore2HfOptions = _DEFAULT_MCORE2HF,
    observer: Observer | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Unpack[Mcore2HfKeywords],
) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory; see convert.mcore2hf.

    Args:
        source: the checkpoint, or a save directory above it.
        target: the directory to write; it must not exist, or see `overwrite`.
        options: what is asked for; each keyword stands in the place of the field of that name.
        observer: is told the plan, how far it is, and what it is at.
        progress: is told how far it is, and nothing else: bytes done, and all bytes.
        keywords: fields of Mcore2HfOptions, such as dtype="float32".

    Raises:
        VlconvError: as one of its subclasses; the target is then as it was.
    """
    from .conversion.convert import mcore2hf

    wanted, watch = asked("mcore2hf", options, keywords), watching(observer, progress)
    if wanted.push is None:
        return mcore2hf(Path(source), Path(target), wanted, watch)
    from .upload.upload import add_upload, refuse_out_of_reach

    refuse_out_of_reach(wanted.push)
    report = mcore2hf(Path(source), Path(target), wanted, watch)
    if not wanted.dry_run:
        add_upload(report, Path(target), wanted.push, wanted.threads, watch)
    return report


def hf2mcore(
    source: AnyPath,
    target: AnyPath,
    options: Hf2McoreOptions = _DEFAULT_HF2MCORE,
    observer: Observer | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Unpack[Hf2McoreKeywords],
) -> Report:
    """Convert a Hugging Face directory, or a repository of the Hub, to Megatron; see convert.hf2mcore.

    Arguments are as those of mcore2hf, keywords as fields of Hf2McoreOptions.
    """
    from .conversion.convert import hf2mcore

    wanted, watch = asked("hf2mcore", options, keywords), watching(observer, progress)
    return hf2mcore(source, Path(target), wanted, watch)


def mcore2mcore(
    source: AnyPath,
    target: AnyPath,
    options: Mcore2McoreOptions = _DEFAULT_MCORE2MCORE,
    observer: Observer | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Unpack[Mcore2McoreKeywords],
) -> Report:
    """Write a Megatron checkpoint's weights in another format, topology or layout; see convert.mcore2mcore.

    Arguments are as those of mcore2hf, keywords as fields of Mcore2McoreOptions.
    """
    from .conversion.convert import mcore2mcore

    wanted, watch = asked("mcore2mcore", options, keywords), watching(observer, progress)
    return mcore2mcore(Path(source), Path(target), wanted, watch)


def verify(
    a: AnyPath,
    b: AnyPath | None = None,
    options: VerifyOptions = _DEFAULT_VERIFY,
    observer: Observer | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Unpack[VerifyKeywords],
) -> Report:
    """Compare two models of either side, or prove the round trip of one; see verification.verify.

    Args:
        a, b: a directory of either side, or one iteration of a save directory as "SAVE:100".
        options, observer, progress: as of mcore2hf.
        keywords: fields of VerifyOptions.

    Returns:
        a Report with the status "same", "different" or "not comparable"; a difference is no exception.
    """
    from .verification.verify import verify

    wanted, watch = asked("verify", options, keywords), watching(observer, progress)
    return verify(a, b, wanted, watch)


def repair(
    source: AnyPath,
    target: AnyPath,
    options: RepairOptions = _DEFAULT_REPAIR,
    observer: Observer | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Unpack[RepairKeywords],
) -> Report:
    """Write a Hugging Face directory again, with known faults of another tool undone; see repairs.repair.

    Arguments are as those of mcore2hf, keywords as fields of RepairOptions.
    """
    from .repairs.repair import repair

    wanted, watch = asked("repair", options, keywords), watching(observer, progress)
    return repair(Path(source), Path(target), wanted, watch)


def inspect(path: AnyPath, options: InspectOptions = _DEFAULT_INSPECT) -> Inspection:
    """Say what a directory is, from its metadata alone; see inspection.inspect."""
    from .inspection.inspect import inspect

    return inspect(path, options)


def push(
    directory: AnyPath, repo: str, options: PushOptions = _DEFAULT_PUSH, observer: Observer | None = None
) -> Report:
    """Upload an output of mcore2hf to the Hub in one commit; see upload.upload."""
    from .upload.upload import upload

    return upload(Path(directory), repo, options, observer or Silent())


def names(layout: str, model: str) -> list[NamePair]:
    """Both full names of every pair of tensors that a layout maps; see layouts.names.name_pairs."""
    from .layouts.names import name_pairs

    return list(name_pairs(layout, model))


def trainers() -> dict[str, str]:
    """The trainers that write each layout, by the name that `--layout` takes."""
    from .layouts import LAYOUTS

    return {name: layout.trainers for name, layout in LAYOUTS.items()}
