"""Tokenizer and processor files: those that are missing, and those that are not the reference's."""

from __future__ import annotations

from pathlib import Path

from ...config.reference import side_files
from ...errors import SourceError, shown
from .held import UNREAD, Held, finding
from .reference import Like

NEEDED = {
    "tokenizer": "AutoTokenizer makes one without a vocabulary, to which every prompt is empty, or cannot load it",
    "preprocessor_config.json": "vLLM and AutoProcessor cannot load it",
    "video_preprocessor_config.json": "AutoProcessor cannot load it, or makes up how videos are read",
}
WISHED = {
    "generation_config.json": "sampling falls back on defaults, and may end at other tokens",
    "chat template": "chat requests are refused",
}


def tell_side_files(held: Held, directory: Path, like: Like) -> None:
    """What lies beside the weights.

    Args:
        held: told.
        directory: that was written.
        like: the reference.
    """
    sees = like.model.traits.tower and like.config.vision is not None
    try:
        ours, theirs = side_files(directory, sees), side_files(like.directory, sees)
    except SourceError as error:
        held.wrong("files", error.what, UNREAD)
        return
    for name in ours.missing:
        if name in NEEDED:
            held.wrong("files", f"missing: {name}", NEEDED[name])
        elif name not in theirs.missing:
            held.findings.append(finding("note", "files", f"missing: {name}", WISHED[name], []))
    known = {path.name: path for path in theirs.copy}
    other = sorted(path.name for path in ours.copy if path.name in known and _differ(path, known[path.name]))
    if other:
        what = f"{len(other)} files are not the reference's: {', '.join(map(shown, other))}"
        held.findings.append(finding("note", "files", what, "they are used as they are", []))


def _differ(ours: Path, theirs: Path) -> bool:
    """Whether two files, of at most 100 MB, hold other bytes."""
    return ours.stat().st_size != theirs.stat().st_size or ours.read_bytes() != theirs.read_bytes()
