"""Options given as keywords of a function, made the object that a command takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from ..errors import OptionError, shown
from . import Hf2McoreOptions, Mcore2HfOptions, Mcore2McoreOptions, RepairOptions, VerifyOptions

Asked = TypeVar("Asked", Mcore2HfOptions, Hf2McoreOptions, Mcore2McoreOptions, RepairOptions, VerifyOptions)

SHORT = {
    "tp": "tensor_model_parallel_size",
    "pp": "pipeline_model_parallel_size",
    "vpp": "virtual_pipeline_model_parallel_size",
    "ep": "expert_model_parallel_size",
    "etp": "expert_tensor_parallel_size",
}
"""What the command line takes for the long names, too; a keyword has one name."""


def asked(command: str, options: Asked, keywords: Mapping[str, Any]) -> Asked:
    """The options object with what the keywords say in the place of its own.

    Args:
        command: the function that was called.
        options: an object of the right kind; not changed.
        keywords: names of its fields, and values.

    Raises:
        OptionError: a keyword is no option of the command, or its value cannot be.
    """
    known = [field.name for field in fields(options)]
    for name in keywords:
        if name not in known:
            raise OptionError(f"{command} has no option {shown(name)}", _near(name, known))
    return replace(options, **keywords) if keywords else options


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    spelled = name.lower().lstrip("-").replace("-", "_")
    near = [SHORT[spelled]] if spelled in SHORT else get_close_matches(spelled, known, n=1)
    found = [option for option in near if option in known]
    return f"Did you mean {found[0]}?" if found else f"Its options are: {', '.join(sorted(known))}."
