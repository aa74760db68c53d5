"""The reference and what comes from it.

The Hugging Face directory that gives what weights cannot show, and the files that go beside converted weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CorruptError, HubFault, ReferenceFault, shown, shown_path
from ..formats.directory.contents import CONFIG, MANIFEST
from ..formats.directory.own_files import check_own, leads_elsewhere
from ..formats.directory.unfinished import check_finished
from ..formats.json_file import read_json
from ..formats.open_files import children, is_dir, is_file, opened
from ..hub.fetch import snapshot
from ..hub.ids import hub_id
from .hf_config import read_config
from .quantization import Quantization, split_quantization

PLACES = ("huggingface", "../huggingface", "../../huggingface")
"""Where trainers, and hf2mcore, put the Hugging Face files of a checkpoint, seen from the checkpoint."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".distcp", ".gguf", ".onnx", ".h5", ".msgpack")
OURS = ("config.json", "README.md", MANIFEST, "args.json")
"""Files that describe the source rather than the model: written anew, or not carried over."""

LARGEST = 100_000_000
"""Bytes; a larger file beside weights is weights by another name."""


class Reference(NamedTuple):
    """Where the config comes from: a Hugging Face directory or, without one, the checkpoint itself.

    Attributes:
        directory: None for the checkpoint itself.
        said: how it was found.
        config: its config.json, or the one that was made; without quantization_config.
        sources: without a directory: source -> the fields of config.json that come from it.
        release: without a directory: the source in `sources` that is an official release, not the checkpoint; "" when
            none was needed.
        quantization: of a directory whose weights are FP8.
        hub_id, revision: of a directory that is a snapshot out of the Hub; "" and None of any other.
    """

    directory: Path | None
    said: str
    config: dict[str, Any]
    sources: Mapping[str, list[str]] = {}
    release: str = ""
    hub_id: str = ""
    revision: str | None = None
    quantization: Quantization | None = None


class SideFiles(NamedTuple):
    """What lies beside the weights of a Hugging Face directory."""

    copy: list[Path]  # to be copied byte for byte
    skipped: list[tuple[str, str]]  # name, and why it is not carried over
    missing: list[str]  # what a user will miss


def find_reference(option: str | Path | None, revision: str | None, near: Path) -> Reference | None:
    """The reference directory: as given, from the Hub, or found beside the checkpoint.

    None where nothing is given or found.

    Args:
        option: an existing directory, or the config.json in it, else a hub id as "Qwen/Qwen3-VL-2B-Instruct" or with a
            revision after an @; None: looked for.
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
        return _reference(_folder(directory), "given as --reference")
    found = hub_id(str(option))
    if found is None:
        raise ReferenceFault(
            f"the reference {shown(option)} does not exist",
            "Give a Hugging Face directory with a config.json, or a hub id.",
        )
    if revision is not None:
        if found.revision is not None:
            raise ReferenceFault(
                f"--reference {shown(found.spelled)} names a revision, and --revision another", "Leave one out."
            )
        found = found._replace(revision=revision)
    said = f"hub id {shown(found.repo)}" + (f", revision {shown(found.revision)}" if found.revision else "")
    try:
        # Never weights: those that are wanted are fetched one by one (reference_weights.py).
        directory = snapshot(found, lambda name, size: name == CONFIG or goes_along(name, size), "the reference")
    except HubFault as fault:
        raise ReferenceFault(fault.what, fault.hint) from fault
    return _reference(directory, said)._replace(hub_id=found.repo, revision=found.revision)


def _folder(given: Path) -> Path:
    """The directory that a user names, perhaps by its config.json."""
    if is_dir(given):
        return given
    if given.name == CONFIG:
        return given.parent
    raise ReferenceFault(
        f"the reference {shown_path(given)} is a file", "Give the directory that it is in, or the config.json there."
    )


def _reference(directory: Path, said: str) -> Reference:
    check_finished(directory)
    if not is_file(directory / "config.json"):
        raise ReferenceFault(
            f"the reference {shown_path(directory)} has no config.json",
            "Give the directory of the Hugging Face model that was trained.",
        )
    config, quantization = split_quantization(read_config(directory))
    return Reference(directory, said, config, quantization=quantization)


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


def goes_along(name: str, size: int) -> bool:
    """Whether a file of that name and size goes beside converted weights."""
    return _refusal(name, size) is None


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
