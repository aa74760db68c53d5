"""Every trainer's naming, by the name that `--layout` takes."""

from __future__ import annotations

from .layout import Layout
from .mbridge import MBRIDGE

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (MBRIDGE,)}
