"""Files uploaded to a repository of the Hub in one commit: its main branch is as it was, or has all of them.

huggingface_hub's upload_folder commits a large folder in several parts (upload_large_folder, where there is one, too),
so between two of them the branch is a mixture. create_commit sends the contents first, past every branch, and leaves
out what an earlier attempt brought there already; then one request changes the branch.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..errors import HubFault, shown, shown_path
from ..formats.directory.contents import MANIFEST
from .fetch import first_line

ANY_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
"""How files of weights end, whoever wrote them."""


class Pushed(NamedTuple):
    """What came of an upload.

    Attributes:
        commit: of the main branch.
        url: of the repository.
        private: whether others see it not.
        deleted: weights of an earlier output that were there under other names.
    """

    commit: str
    url: str
    private: bool
    deleted: list[str]


def check_reach(repo: str) -> None:
    """Ask the Hub who we are and what is there, so that a long run does not end with a token that is missing.

    Raises:
        HubFault: it cannot be reached, or knows nobody of this token; or the repository holds another model.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.whoami()
        there = api.model_info(repo) if api.repo_exists(repo) else None
    except Exception as error:  # which classes these are differs between versions of huggingface_hub
        raise HubFault(
            f"nothing can be uploaded to {shown(repo)}: {first_line(error)}",
            "See that the Hub can be reached and that HF_TOKEN is a token that may write (hf auth login); or leave "
            "the upload for later.",
        ) from error
    if there:
        _refuse_other(repo, [file.rfilename for file in there.siblings or []])


def push(directory: Path, names: Collection[str], repo: str, message: str) -> Pushed:
    """Upload files in one commit; a repository that is not there is made, a private one.

    Weights in its top folder that an earlier output left there, and that are none of these files, are deleted in the
    same commit: a loader would read both. Weights of any other model are not touched: nothing is done then.

    Args:
        directory: that holds the files.
        names: of the files, from there on.
        repo: "org/name".
        message: of the commit.

    Raises:
        HubFault: it could not be done; what an attempt has sent is not sent again by the next one.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    try:
        api = HfApi()
        url = str(api.create_repo(repo, private=True, exist_ok=True))
        before = api.model_info(repo)
        there = [file.rfilename for file in before.siblings or []]
        _refuse_other(repo, there)
        deleted = [name for name in there if _is_weights(name) and name not in names]
        operations: list[CommitOperationAdd | CommitOperationDelete | CommitOperationCopy] = [
            *(CommitOperationAdd(name, str(directory / name)) for name in sorted(names)),
            *(CommitOperationDelete(name, is_folder=False) for name in deleted),
        ]
        # The parent: what was listed is what is replaced, or nothing is.
        done = api.create_commit(repo, operations, commit_message=message, parent_commit=before.sha)
    except HubFault:
        raise
    except Exception as error:  # which classes these are differs between versions of huggingface_hub
        raise HubFault(f"{shown_path(directory)} was not uploaded to {shown(repo)}: {first_line(error)}") from error
    return Pushed(str(done.oid), url, bool(before.private), deleted)


def _refuse_other(repo: str, there: list[str]) -> None:
    """Only what vlconv wrote is replaced, as on a disk: somebody's model may be under that name."""
    weights = next((name for name in there if "/" not in name and name.endswith(ANY_WEIGHTS)), "")
    if weights and MANIFEST not in there:
        raise HubFault(
            f"{shown(repo)} on the Hub holds a model that vlconv did not write: {shown(weights)}, and no {MANIFEST}",
            "Name another repository, or delete the weights there first.",
        )


def _is_weights(name: str) -> bool:
    return "/" not in name and name.endswith((".safetensors", ".safetensors.index.json"))
