"""Files of a repository, fetched by huggingface_hub into its cache, or read there where the Hub is out of reach."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from ..errors import HubFault, shown
from .cached import told_cache
from .ids import HubId


def snapshot(found: HubId, wanted: Callable[[str, int], bool], what: str) -> Path:
    """Fetch files of a repository; returns the snapshot's directory in the cache.

    The Hub is asked once whether it is there. If not, what the cache has is taken, and may be less than what is wanted.

    Args:
        found: the repository.
        wanted: whether a file of a name and size is.
        what: it is to be, for messages: "the reference".

    Raises:
        HubFault: there is no such repository or revision, or neither the Hub nor the cache gives it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = shown(found.spelled)
    names: list[str] = []
    why: Exception | None = None
    try:
        info = HfApi().model_info(found.repo, revision=found.revision, files_metadata=True, timeout=10)
        names = [file.rfilename for file in info.siblings or [] if wanted(file.rfilename, file.size or 0)]
    except GatedRepoError as error:
        raise HubFault(
            f"the Hub gives {what} {name} only to those who were granted access",
            f"Ask for it on the page of {shown(found.repo)}, and set HF_TOKEN to a token of that account.",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        lacks = (
            "revision of that name"
            if isinstance(error, RevisionNotFoundError)
            else "repository of that name, or it is private"
        )
        raise HubFault(
            f"{what} {name} is not a directory here, and the Hub has no {lacks}",
            "Check the name, the revision and HF_TOKEN.",
        ) from error
    except HFValidationError as error:
        raise HubFault(f"{what} {name} is not a directory here, and no name on the Hub: {first_line(error)}") from error
    except Exception as error:  # which classes a failed connection raises differs between versions of huggingface_hub
        why = error
    try:
        # Names are taken literally: a pattern of the repository's making must not match its weights.
        return Path(
            snapshot_download(
                found.repo,
                revision=found.revision,
                allow_patterns=[glob.escape(file) for file in names],
                local_files_only=why is not None,
            )
        )
    except LocalEntryNotFoundError as error:
        raise HubFault(
            f"{what} {name} is not a directory here, not in the local cache, and the Hub cannot be reached: "
            f"{first_line(why or error)}",
            f"{told_cache(found.repo)} Give a directory, or fetch it beforehand where there is a network (HF_HOME is "
            "the cache).",
        ) from error
    except Exception as error:
        raise HubFault(
            f"the files of {name} could not be fetched: {first_line(error)}",
            "Try again: what is in the cache already is not fetched a second time. Or give a directory.",
        ) from error


def first_line(error: Exception) -> str:
    """What a library says went wrong, in one line that is safe to print."""
    lines = str(error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__)
