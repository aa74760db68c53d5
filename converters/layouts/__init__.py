"""Every trainer's naming, by the name that `--layout` takes, and how one is recognised."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import MismatchError, UnsupportedError, shown
from ..models import MODELS
from .hf_names import HF, HF_OLD, HF_TEXT
from .hf_towers import MEGATRON_BRIDGE_0_3, MEGATRON_BRIDGE_QWEN2_5, MS_SWIFT, ROLL
from .hybrid import MBRIDGE_QWEN3_5, MS_SWIFT_GDN, MS_SWIFT_GDN_DECOUPLED, MS_SWIFT_HF_GDN, SLIME_VL
from .layout import Layout
from .mbridge import MBRIDGE
from .mbridge_qwen2_5 import MBRIDGE_QWEN2_5
from .mindspeed_mm import MINDSPEED_MM, MINDSPEED_MM_CANONICAL
from .pai import PAI
from .text_only import LANGUAGE_MODEL, MEGATRON_LM, MS_SWIFT_TEXT, SLIME_TEXT

_ALL = (
    MBRIDGE,
    MBRIDGE_QWEN2_5,
    MEGATRON_BRIDGE_0_3,
    MEGATRON_BRIDGE_QWEN2_5,
    MS_SWIFT,
    PAI,
    ROLL,
    MINDSPEED_MM,
    MINDSPEED_MM_CANONICAL,
    MBRIDGE_QWEN3_5,
    MS_SWIFT_GDN,
    MS_SWIFT_GDN_DECOUPLED,
    MS_SWIFT_HF_GDN,
    SLIME_VL,
    MEGATRON_LM,
    SLIME_TEXT,
    MS_SWIFT_TEXT,
    LANGUAGE_MODEL,
    HF,
    HF_OLD,
    HF_TEXT,
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}


def named(name: str) -> Layout:
    """The layout of that name.

    Raises:
        MismatchError: there is none; lists those there are.
    """
    if name not in LAYOUTS:
        raise MismatchError(f"no layout is called {shown(name)!r}", f"There are: {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def known_layouts(model_type: str, file_format: str) -> list[str]:
    """The layouts that a model can be written in, in a format."""
    return [name for name, other in LAYOUTS.items() if model_type in other.models and file_format in other.writes]


def to_write(name: str | None, model_type: str, file_format: str) -> Layout:
    """The layout to write a model in: the one asked for, else the model's default.

    Args:
        name: what the user asked for.
        model_type: of the model.
        file_format: "torch_dist" or "torch".

    Raises:
        MismatchError: there is none of that name, or it is another model's.
        UnsupportedError: its trainers do not read that format.
    """
    layout = named(name or MODELS[model_type].default_layout)
    known = ", ".join(known_layouts(model_type, file_format))
    if model_type not in layout.models:
        raise MismatchError(
            f"layout {layout.name} is one of {', '.join(layout.models)}; the source is a {model_type}",
            f"For {model_type} there are: {known}.",
        )
    if file_format not in layout.writes:
        what = (
            f"is written as {' and '.join(layout.writes)}, not as {file_format}"
            if layout.writes
            else "is read, but not written"
        )
        raise UnsupportedError(
            f"layout {layout.name} ({layout.trainers}) {what}: its trainers read nothing else",
            f"For {model_type} as {file_format} there are: {known}.",
        )
    return layout


def detect(names: Iterable[str]) -> Layout:
    """The one layout whose marks the names carry.

    Raises:
        UnsupportedError: none, or several.
    """
    listed = sorted(names)
    fitting = [layout for layout in LAYOUTS.values() if layout.fits(listed)]
    if len(fitting) == 1:
        return fitting[0]
    roots = sorted({".".join(n.split(".")[:2]) for n in listed})
    seen = "\n".join(f"  {shown(r)}.…" for r in roots[:10])
    what = (
        f"fit several layouts: {', '.join(layout.name for layout in fitting)}"
        if fitting
        else "fit no layout that vlconv knows"
    )
    raise UnsupportedError(
        f"the tensor names {what}. They begin with:\n{seen}",
        f"Known layouts: {', '.join(LAYOUTS)}; --layout NAME overrides.",
    )
