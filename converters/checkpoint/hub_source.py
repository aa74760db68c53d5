"""A Hugging Face source that is named: a directory, or a repository of the Hub, whose weights are fetched."""

from __future__ import annotations

from os import PathLike, path
from pathlib import Path

from ..config.reference import goes_along
from ..errors import HubFault, shown
from ..formats import safetensors
from ..formats.directory.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG
from ..hub.cached import told_cache
from ..hub.fetch import snapshot
from ..hub.ids import HubId, hub_id


def hf_directory(spelled: str | PathLike[str]) -> Path:
    """The directory that a user names; of `org/name` or `org/name@revision` the one in the Hub's cache.

    Args:
        spelled: what is there under that name comes first, and only text can name a repository.

    Raises:
        HubFault: neither the Hub nor the cache gives it, or the cache only in part.
        CorruptError: its index is damaged or hostile.
    """
    found = _repository(spelled)
    if found is None:
        return Path(spelled)
    directory = snapshot(found, _wanted, "the source")
    _check_whole(directory, found)
    return directory


def adapter_directory(spelled: str | PathLike[str]) -> Path:
    """The same of a PEFT directory: of a repository the two files of an adapter are fetched."""
    found = _repository(spelled)
    wanted = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    return Path(spelled) if found is None else snapshot(found, lambda name, size: name in wanted, "the adapter")


def _repository(spelled: str | PathLike[str]) -> HubId | None:
    """The repository that is meant; None where it is a directory."""
    found = hub_id(spelled) if isinstance(spelled, str) and not path.lexists(spelled) else None
    return found if found and "/" in found.repo else None


def _wanted(name: str, size: int) -> bool:
    weights = name == safetensors.INDEX or ("/" not in name and name.endswith(".safetensors"))
    return weights or name == CONFIG or goes_along(name, size)


def _check_whole(directory: Path, found: HubId) -> None:
    """Refuse a snapshot of which only config.json was fetched once, as for a reference."""
    missing = [] if (directory / CONFIG).is_file() else [CONFIG]
    missing += safetensors.not_there(directory)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise HubFault(
            f"of the source {shown(found.spelled)} there is no {shown(missing[0])}{more}: the Hub cannot be reached, "
            "or has none",
            f"{told_cache(found.repo)} Fetch it where there is a network, or give a directory with safetensors "
            "weights.",
        )
