"""What a directory of one model or one checkpoint consists of, entry by entry.

Whatever else lies there is seen by that.

Each function `strange_in_…` lists what no such directory has; None where the directory is none at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ...errors import CorruptError
from .. import FORMATS, is_mcore
from ..json_file import TABLE, read_json
from ..open_files import children, is_dir, is_file
from ..safetensors import INDEX, holds
from .locate import TRACKER

CONFIG = "config.json"
HF_FILES = "huggingface"
MANIFEST = "vlconv.json"
"""Ours, in the directory that an output is; see manifest/."""

SIDE_FILES = {
    CONFIG,
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "configuration.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
}
"""Beside the weights of a Hugging Face model, and in a checkpoint's folder `huggingface`."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""What peft saves an adapter as."""

HUB_FILES = {".gitattributes", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "README.md"}
"""What a repository of the Hub has besides."""

STATEMENTS = {MANIFEST, "args.json", "mca_config.json", "run_config.yaml", "train_state.pt"}
"""What trainers put beside a checkpoint's own files."""

TRACKERS = {TRACKER, "latest_train_state.pt"}
"""What names the latest iteration: Megatron's file, and Megatron-Bridge's."""

_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors", re.ASCII)
_ITERATION = re.compile(r"iter_\d+|release", re.ASCII)


def strange_in_model(directory: Path) -> list[Path] | None:
    """A Hugging Face model: config.json, safetensors weights, tokenizer and processor files."""
    if not is_file(directory / CONFIG) or not holds(directory):
        return None
    known = SIDE_FILES | HUB_FILES | {INDEX, MANIFEST} | _indexed(directory)
    return _others(directory, lambda e: is_file(e) and (e.name in known or _WEIGHTS.fullmatch(e.name) is not None))


def strange_in_adapter(directory: Path) -> list[Path] | None:
    """A PEFT adapter: its config and its weights."""
    if not is_file(directory / ADAPTER_CONFIG):
        return None
    known = {ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST} | HUB_FILES
    return _others(directory, lambda e: is_file(e) and e.name in known)


def strange_in_iteration(directory: Path) -> list[Path] | None:
    """A checkpoint's own directory: the files of one format, what trainers state beside them, and `huggingface`."""
    owns = next((f.owns for f in FORMATS.values() if f.holds(directory)), None)
    if owns is None:
        return None
    found = _others(directory, lambda e: owns(e) or e.name == HF_FILES or (is_file(e) and e.name in STATEMENTS))
    return found + _strange_in_hf_files(directory / HF_FILES)


def strange_in_checkpoint(directory: Path) -> list[Path] | None:
    """One checkpoint: its own directory, or one above it with a single iteration, a tracker file and `huggingface`.

    The iteration may have a second name, a link beside it.
    """
    if is_mcore(directory):
        return strange_in_iteration(directory)
    there = iterations(directory)
    if not there:
        return None
    inside = strange_in_iteration(there[0]) if len(there) == 1 and not there[0].is_symlink() else None
    known = {HF_FILES, *({there[0].name} if inside is not None else ())}
    found = _others(
        directory,
        lambda e: e.name in known or _is_second_name(e) or (is_file(e) and e.name in TRACKERS | STATEMENTS),
    )
    return found + (inside or []) + _strange_in_hf_files(directory / HF_FILES)


def is_save_directory(directory: Path) -> bool:
    """Whether a directory is what Megatron's --save names: it holds iterations, or a tracker file that names one.

    Other programs call folders "release", too: that one must hold a checkpoint.
    """
    if not is_dir(directory):
        return False
    return is_file(directory / TRACKER) or any(p.name != "release" or is_mcore(p) for p in iterations(directory))


def iterations(directory: Path) -> list[Path]:
    """The folders of iterations in a save directory, `iter_…` and `release`, each once."""
    named = (child for child in children(directory) if _ITERATION.fullmatch(child.name) and is_dir(child))
    return [child for child in named if not _is_second_name(child)]


def is_iteration(directory: Path) -> bool:
    """Whether a directory is one of the iterations of a save directory, by its name and by what it holds."""
    return _ITERATION.fullmatch(directory.name) is not None and is_mcore(directory)


def _is_second_name(entry: Path) -> bool:
    """Whether it is a link to another iteration beside it, as `iter_0000000` to `release`."""
    if not entry.is_symlink() or _ITERATION.fullmatch(entry.name) is None:
        return False
    return _ITERATION.fullmatch(str(entry.readlink())) is not None and is_dir(entry)


def _strange_in_hf_files(directory: Path) -> list[Path]:
    """Config, tokenizer and processor files; weights would be a model of their own."""
    if is_dir(directory) and not directory.is_symlink():
        return _others(directory, lambda e: is_file(e) and e.name in SIDE_FILES)
    return [directory] if os.path.lexists(directory) else []


def _others(directory: Path, own: Callable[[Path], bool]) -> list[Path]:
    return [entry for entry in children(directory) if not own(entry)]


def _indexed(directory: Path) -> set[str]:
    """The files that the index names, whatever they are called."""
    try:
        weight_map = read_json(directory / INDEX, TABLE).get("weight_map")
    except CorruptError:
        return set()
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    return {name for name in names if isinstance(name, str) and name.endswith(".safetensors")}
