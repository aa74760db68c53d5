"""All cases."""

from __future__ import annotations

from .case import Case
from .configs import CONFIGS
from .data_files import DATA_FILES
from .directories import DIRECTORIES
from .fp8 import FP8
from .hf_files import HF_FILES
from .hybrid import HYBRID
from .legacy import LEGACY
from .metadata import METADATA
from .names import NAMES
from .peft import PEFT
from .pickles import PICKLES
from .statements import STATEMENTS
from .weights import WEIGHTS
from .zips import ZIPS

KINDS = (
    PICKLES,
    ZIPS,
    METADATA,
    DATA_FILES,
    LEGACY,
    HF_FILES,
    CONFIGS,
    STATEMENTS,
    DIRECTORIES,
    NAMES,
    WEIGHTS,
    HYBRID,
    FP8,
    PEFT,
)
CASES: list[Case] = [case for kind in KINDS for case in kind.cases]
