"""What a checkpoint states of itself outside its tensors: files that trainers leave beside or above it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..json_file import read_json
from ..open_files import is_file


class Stated(NamedTuple):
    """Named values and the file they come from."""

    where: str
    values: dict[str, Any]


def statements(directory: Path, args: Callable[[], dict[str, Any]]) -> list[Stated]:
    """All that is stated: Megatron's own args, Megatron-Bridge's run_config.yaml, and other trainers' own files.

    ms-swift writes args.json, ROLL mca_config.json.

    Args:
        directory: of the checkpoint.
        args: reads the args in the checkpoint's own files; {} for none.
    """
    found = [Stated("the checkpoint's args", args())]
    bridge = directory / "run_config.yaml"
    if is_file(bridge):
        found.append(Stated("run_config.yaml", _model_section(bridge)))
    for name in ("args.json", "mca_config.json"):
        found += [Stated(name, read_json(path)) for path in _here_or_above(directory, name)]
    return [stated for stated in found if stated.values]


def _here_or_above(directory: Path, name: str) -> list[Path]:
    """The file of that name that is nearest: in the directory or in one of the two above it; [] where there is none."""
    paths = [folder / name for folder in (directory, directory.parent, directory.parent.parent)]
    return [path for path in paths if is_file(path)][:1]


def _model_section(path: Path) -> dict[str, Any]:
    from .yaml_file import read_yaml  # PyYAML, which only a checkpoint of Megatron-Bridge needs

    parsed = read_yaml(path)
    model = parsed.get("model") if isinstance(parsed, dict) else None
    return {str(k): v for k, v in model.items()} if isinstance(model, dict) else {}
