"""vlconv: Qwen checkpoints between Megatron and Hugging Face, without a lost or moved element.

    from vlconv import mcore2hf, verify

    mcore2hf("checkpoints", "Qwen3-VL-mine", dtype="bfloat16")
    assert verify("checkpoints", "Qwen3-VL-mine").status == "same"

Whatever is public is loaded when it is first asked for: `import vlconv` alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

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
    "SourceError",
    "TargetError",
    "UnsupportedError",
    "VerifyOptions",
    "VlconvError",
    "__version__",
    "hf2mcore",
    "inspect",
    "mcore2hf",
    "mcore2mcore",
    "names",
    "push",
    "repair",
    "verify",
]

if TYPE_CHECKING:
    from vlconv.converters import (
        Block,
        ChangedError,
        CorruptError,
        Difference,
        Fact,
        Finding,
        HeatMap,
        Hf2McoreOptions,
        HubFault,
        Inspection,
        InspectOptions,
        Mcore2HfOptions,
        Mcore2McoreOptions,
        MismatchError,
        MissingLibrary,
        NotACheckpoint,
        NotComparable,
        Observer,
        OptionError,
        Phase,
        Progress,
        PushOptions,
        RankError,
        ReadError,
        ReferenceFault,
        RepairOptions,
        Report,
        SourceError,
        TargetError,
        UnsupportedError,
        VerifyOptions,
        VlconvError,
        hf2mcore,
        inspect,
        mcore2hf,
        mcore2mcore,
        names,
        push,
        repair,
        verify,
    )


def __getattr__(name: str) -> object:
    """A public name, at its first use; then it is an attribute like any other."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlconv import converters

    found = globals()[name] = getattr(converters, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
