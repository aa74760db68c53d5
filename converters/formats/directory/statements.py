"""What a checkpoint states of itself outside its tensors: files that trainers leave beside or above it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..json_file import read_json
from ..open_files import is_file

RUN_CONFIG = "run_config.yaml"
"""Megatron-Bridge's own file."""


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
    bridge = directory / RUN_CONFIG
    if is_file(bridge):
        found.append(Stated(RUN_CONFIG, _section(bridge, "model")))
    for name in ("args.json", "mca_config.json"):
        found += [Stated(name, read_json(path)) for path in _here_or_above(directory, name)]
    return [stated for stated in found if stated.values]


def _here_or_above(directory: Path, name: str) -> list[Path]:
    """The file of that name that is nearest: in the directory or in one of the two above it; [] where there is none."""
    paths = [folder / name for folder in (directory, directory.parent, directory.parent.parent)]
    return [path for path in paths if is_file(path)][:1]


def _section(path: Path, name: str) -> dict[str, Any]:
    from .yaml_file import read_yaml  # PyYAML, which only a checkpoint of Megatron-Bridge needs

    parsed = read_yaml(path)
    section = parsed.get(name) if isinstance(parsed, dict) else None
    return {str(k): v for k, v in section.items()} if isinstance(section, dict) else {}


OF_MODEL = ("moe_router_topk", "tensor_model_parallel_size", "expert_tensor_parallel_size")
"""What run_config.yaml says of the model on which its adapter depends."""


def adapter_statements(directory: Path, stated: Iterable[Stated]) -> list[Stated]:
    """What is stated of an adapter (LoRA): Megatron-Bridge's section `peft`, and what other files have all together.

    Args:
        directory: of the checkpoint.
        stated: by `statements`.
    """
    bridge = directory / RUN_CONFIG
    peft = _section(bridge, "peft") if is_file(bridge) else {}
    found = [Stated(where, values) for where, values in stated if where != RUN_CONFIG]
    if peft:
        model = _section(bridge, "model")
        found.append(Stated(RUN_CONFIG, {name: model[name] for name in OF_MODEL if name in model} | peft))
    return found
