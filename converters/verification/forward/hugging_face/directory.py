"""Whether transformers takes of a Hugging Face directory the tensors that were compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import NotComparable, shown, shown_path
from ....formats.directory.contents import ADAPTER_CONFIG
from ....formats.open_files import is_file
from ....formats.safetensors import INDEX, SINGLE

OTHER_FILE = "transformers_weights"
"""The field of config.json that names another file of weights."""


def check_taken(directory: Path, hf_config: Mapping[str, Any]) -> None:
    """transformers reads the files of a directory that vlconv reads, and no others.

    Args:
        directory: that it is given as it is.
        hf_config: its config.json.

    Raises:
        NotComparable: it would run other weights than those that are compared.
    """
    where = shown_path(directory)
    if is_file(directory / SINGLE) and is_file(directory / INDEX):
        raise NotComparable(
            f"{where} holds both {SINGLE} and {INDEX}: transformers runs the first, and the second is compared",
            "Move the one that is not this model's out of the directory.",
        )
    if is_file(directory / ADAPTER_CONFIG):
        raise NotComparable(
            f"{where} holds {ADAPTER_CONFIG} beside the model: transformers runs it with that adapter, if peft is "
            "installed, and without it the weights are compared",
            "Move the adapter's files out of the directory, and give them as a side of their own, with --base.",
        )
    if (named := hf_config.get(OTHER_FILE)) is not None:
        raise NotComparable(
            f"{where}/config.json names {shown(named)} as {OTHER_FILE}: transformers runs that file, and "
            f"{INDEX if is_file(directory / INDEX) else SINGLE} is compared",
            f"Remove {OTHER_FILE} from config.json, or leave --forward out.",
        )
