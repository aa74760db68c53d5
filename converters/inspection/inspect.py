"""inspect: what a directory is, without a reference, without writing, from metadata alone."""

from __future__ import annotations

from os import PathLike

from ..checkpoint.collector import paused
from ..errors import naming_missing_libraries
from ..options import InspectOptions
from .hugging_face import hugging_face
from .inspection import Inspection
from .megatron import megatron
from .places import find, is_hf, named


@naming_missing_libraries()
@paused()
def inspect(path: str | PathLike[str], options: InspectOptions) -> Inspection:
    """Describe a Megatron checkpoint of any format, a Hugging Face directory, or a save directory.

    What is incomplete or foreign is described as far as it goes, with why it does not convert.

    Args:
        path: the directory, or an iteration of a save directory as "SAVE:100".
        options: which iteration, and whose naming.

    Raises:
        NotACheckpoint: nothing of the kind is there.
        ReadError: the system does not let it be read.
    """
    asked = named(path, options.iteration)
    if is_hf(asked.path):
        return hugging_face(asked.path)
    return megatron(find(asked.path, asked.iteration), options.layout)
