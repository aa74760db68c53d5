"""The reference and what comes from it.

The Hugging Face directory that gives what weights cannot show, and the files that go beside converted weights.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CorruptError, ReferenceFault, shown, shown_path
from ..formats.directory.contents import MANIFEST
from ..formats.directory.own_files import check_own, leads_elsewhere
from ..formats.directory.unfinished import check_finished
from ..formats.json_file import read_json
from ..formats.open_files import children, is_dir, is_file, opened
from .hf_config import read_config

PLACES = ("huggingface", "../huggingface", "../../huggingface")
"""Where trainers, and hf2mcore, put the Hugging Face files of a checkpoint, seen from the checkpoint."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".distcp", ".gguf", ".onnx", ".h5", ".msgpack")
OURS = ("config.json", "README.md", MANIFEST, "args.json")
"""Files that describe the source rather than the model: written anew, or not carried over."""

LARGEST = 100_000_000
"""Bytes; a larger file beside weights is weights by another name."""

_HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)


class Reference(NamedTuple):
    """Where the config comes from: a Hugging Face directory or, without one, the checkpoint itself.

    Attributes:
        directory: None for the checkpoint itself.
        said: how it was found.
        config: its config.json, or the one that was made.
        sources: without a directory: source -> the fields of config.json that come from it.
        release: without a directory: the source in `sources` that is an official release, not the checkpoint; "" when
            none was needed.
        hub_id, revision: of a directory that is a snapshot out of the Hub; "" and None of any other.
    """

    directory: Path | None
    said: str
    config: dict[str, Any]
    sources: Mapping[str, list[str]] = {}
    release: str = ""
    hub_id: str = ""
    revision: str | None = None


class SideFiles(NamedTuple):
    """What lies beside the weights of a Hugging Face directory."""

    copy: list[Path]  # to be copied byte for byte
    skipped: list[tuple[str, str]]  # name, and why it is not carried over
    missing: list[str]  # what a user will miss


def find_reference(option: str | Path | None, revision: str | None, near: Path) -> Reference | None:
    """The reference directory: as given, from the Hub, or found beside the checkpoint.

    None where nothing is given or found.

    Args:
        option: an existing directory, else a hub id as "Qwen/Qwen3-VL-2B-Instruct"; None: looked for.
        revision: of the hub id: a branch, tag or commit.
        near: the checkpoint's directory.

    Raises:
        ReferenceFault: there is none of that name, it has no config.json, the Hub does not give it, or it was not named
            and is a link to somewhere else.
        CorruptError: its config.json is no JSON, or a link out of it.
    """
    if option is None:
        if revision is not None:
            raise ReferenceFault("--revision names a revision of a hub id, but none is given", "Add --reference.")
        return _beside(near)
    directory = Path(option)
    if directory.exists():
        if revision is not None:
            raise ReferenceFault(
                f"--revision goes with a hub id, but --reference {shown_path(directory)} is here on disk",
                "Leave --revision out, or give a hub id.",
            )
        return _reference(directory, "given as --reference")
    hub_id = str(option)
    if not _HUB_ID.fullmatch(hub_id):
        raise ReferenceFault(
            f"the reference {shown(hub_id)} does not exist",
            "Give a Hugging Face directory with a config.json, or a hub id.",
        )
    said = f"hub id {shown(hub_id)}" + (f", revision {shown(revision)}" if revision else "")
    return _reference(_download(hub_id, revision), said)._replace(hub_id=hub_id, revision=revision)


def _reference(directory: Path, said: str) -> Reference:
    check_finished(directory)
    if not is_file(directory / "config.json"):
        raise ReferenceFault(
            f"the reference {shown_path(directory)} has no config.json",
            "Give the directory of the Hugging Face model that was trained.",
        )
    return Reference(directory, said, read_config(directory))


def _beside(near: Path) -> Reference | None:
    for place in PLACES:
        directory = near / place
        if is_file(directory / "config.json"):
            _refuse_link(directory, near)
            return _reference(directory.resolve(), f"{place} beside the checkpoint")
    return None


def _refuse_link(directory: Path, near: Path) -> None:
    """Refuse a folder `huggingface` that nobody named and that is a link out of the folder it lies in.

    Whoever made the checkpoint would choose a directory of this machine, and its files would go into the output. It may
    lead to another of PLACES, as that of an iteration to that of its save directory.
    """
    target = leads_elsewhere(directory, [near / place for place in PLACES])
    if target is not None:
        raise ReferenceFault(
            f"{shown_path(directory)} is a link that leads to {shown_path(target)}, and nobody named that",
            "If that is the model which was trained, name it: --reference with that directory.",
        )


def _download(hub_id: str, revision: str | None) -> Path:
    """Fetch config and side files, never weights; from the local cache where the Hub is out of reach.

    Returns the snapshot's directory.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted: list[str] = []
    why: Exception | None = None
    try:
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=10)
        wanted = [
            s.rfilename
            for s in info.siblings or []
            if s.rfilename == "config.json" or _refusal(s.rfilename, s.size or 0) is None
        ]
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ReferenceFault(
            f"the Hub does not give {shown(hub_id)}: {first_line(error)}", "Check the id, --revision and HF_TOKEN."
        ) from error
    except Exception as error:  # which classes a failed connection raises differs between versions of huggingface_hub
        why = error
    try:
        # Names are taken literally: a pattern of the repository's making must not match its weights.
        patterns = [glob.escape(name) for name in wanted]
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=why is not None)
        )
    except LocalEntryNotFoundError as error:
        raise ReferenceFault(
            f"the reference {shown(hub_id)} is not a directory here, not in the local cache, and the Hub cannot be "
            f"reached: {first_line(why or error)}",
            "Pass --reference with a directory, or fetch its files beforehand where there is a network (HF_HOME is "
            "the cache).",
        ) from error
    except Exception as error:
        raise ReferenceFault(
            f"the files of {shown(hub_id)} could not be fetched: {first_line(error)}",
            "Try again, or pass --reference with a directory.",
        ) from error


def first_line(error: Exception) -> str:
    """What a library says went wrong, in one line that is safe to print."""
    lines = str(error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__)


def side_files(directory: Path | None, sees: bool = True) -> SideFiles:
    """The files that go beside converted weights.

    Regular files at the top level, but no weights, no code and nothing that is written anew.

    Args:
        directory: the reference; None: there is none, so all is missing.
        sees: whether it is a model of images and videos; another has no processors to miss.

    Raises:
        CorruptError: one of them is a link out of the directory, whoever named that.
        ReadError: the system does not let a file that is to be copied be read.
    """
    files: list[Path] = []
    skipped: list[tuple[str, str]] = []
    for path in children(directory) if directory else ():
        if is_dir(path) or path.name.startswith("."):
            continue
        if path.exists() and _refusal(path.name, 0) is None:
            check_own(path)  # whatever it leads to
        if not is_file(path):
            skipped.append((path.name, "a broken link" if not path.exists() else "not a regular file"))
            continue
        refusal = _refusal(path.name, path.stat().st_size)
        if refusal is None:
            with opened(path):  # now, not after hours of weights
                files.append(path)
        elif refusal:
            skipped.append((path.name, refusal))
    return SideFiles(files, skipped, _missing({path.name: path for path in files}, sees))


def _refusal(name: str, size: int) -> str | None:
    """Why a file is not carried over: None for one that is, "" where that goes without saying."""
    lower = name.lower()
    if "/" in name or name.startswith(".") or name in OURS or lower.endswith((*WEIGHTS, ".index.json")):
        return ""
    if lower.endswith(".py"):
        return "remote code is not carried over"
    return f"larger than {LARGEST // 10**6} MB" if size > LARGEST else None


def _missing(there: Mapping[str, Path], sees: bool) -> list[str]:
    missing = []
    if "tokenizer.json" not in there and not {"vocab.json", "merges.txt"} <= there.keys():
        missing.append("tokenizer")
    if sees and not there.keys() & {"preprocessor_config.json", "processor_config.json"}:
        missing += ["preprocessor_config.json", "video_preprocessor_config.json"]
    elif sees and not there.keys() & {"video_preprocessor_config.json", "processor_config.json"}:
        missing.append("video_preprocessor_config.json")
    if "generation_config.json" not in there:
        missing.append("generation_config.json")
    if not there.keys() & {"chat_template.jinja", "chat_template.json"} and not _template_inside(
        there.get("tokenizer_config.json")
    ):
        missing.append("chat template")
    return missing


def _template_inside(tokenizer_config: Path | None) -> bool:
    try:
        return tokenizer_config is not None and "chat_template" in read_json(tokenizer_config)
    except CorruptError:
        return False
