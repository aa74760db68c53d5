"""The Hub's cache on this machine: what is in it, read off the names of its folders."""

from __future__ import annotations

from pathlib import Path

from ..errors import shown, shown_path
from .ids import HubId

LISTED = 5
"""Names that are said."""

_PREFIX = "models--"


def told_cache(repo: str) -> str:
    """What the cache holds, in one sentence for who asked for something that it does not hold.

    Args:
        repo: whose revisions are said, if it has some; else the models that are there.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    revisions = _revisions(cache / (_PREFIX + repo.replace("/", "--")))
    if revisions:
        return f"The cache {shown_path(cache)} has of {shown(repo)}: {_some(revisions)}."
    models = _models(cache)
    return f"The cache {shown_path(cache)} has {_some(models) if models else 'no model'}."


def cached_id(directory: Path) -> HubId | None:
    """The repository and commit of a snapshot in a cache; None for any other directory."""
    folder = directory.parent.parent.name
    if directory.parent.name != "snapshots" or not folder.startswith(_PREFIX):
        return None
    return HubId(folder.removeprefix(_PREFIX).replace("--", "/"), directory.name)


def _models(cache: Path) -> list[str]:
    folders = _children(cache)
    return [
        path.name.removeprefix(_PREFIX).replace("--", "/")
        for path in folders
        if path.name.startswith(_PREFIX) and _children(path / "snapshots")
    ]


def _revisions(folder: Path) -> list[str]:
    """Branches and tags, and commits that none of them names."""
    names = {path.read_text().strip(): path.name for path in _children(folder / "refs") if path.is_file()}
    return [names.get(path.name, path.name) for path in _children(folder / "snapshots")]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(shown(name) for name in names[:LISTED]) + more
