"""Which field of a config a shape hangs on.

Asked only when a shape is wrong, answered by changing each field and looking what moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from ..errors import MismatchError, VlconvError, shown
from ..models import model_of
from ..models.shared.config import ModelConfig, TextConfig, VisionConfig, hf_path
from ..tensors.spec import Shape, TensorSpec

Shapes = Mapping[str, Shape]


def check_shapes(
    have: Mapping[str, TensorSpec],
    want: Shapes,
    config: ModelConfig,
    shapes: Callable[[ModelConfig], Shapes],
    where: str,
) -> None:
    """Every tensor has the shape that the config gives it.

    Args:
        have: what the file holds; has every name in `want`.
        want: the shapes that the config gives.
        config: the config.
        shapes: config -> shapes, to find the field at fault.
        where: how to call the file in the message.

    Raises:
        MismatchError: naming the first wrong tensor, both shapes and the config's fields behind the difference.
    """
    wrong = [name for name, shape in want.items() if have[name].shape != shape]
    if not wrong:
        return
    name = wrong[0]
    behind = fields_behind(config, shapes, name, have[name].shape)
    more = f" ({len(wrong) - 1} more tensors differ)" if len(wrong) > 1 else ""
    if is_turned(have[name].shape, want[name]):
        why = "It is the shape of the transpose: it was written with its two axes exchanged."
    else:
        why = "The config belongs to another model or size, or the checkpoint is damaged."
    raise MismatchError(
        f"{where}: {shown(name)} is {shown(list(have[name].shape))}; the config makes it {list(want[name])}{more}",
        (f"This shape follows from {', '.join(behind)}. " if behind else "") + why,
    )


def is_turned(found: Shape, want: Shape) -> bool:
    """Whether a shape is that of the other's transpose; stacked matrices are transposed each by itself."""
    return len(found) >= 2 and found != want and found == (*want[:-2], *want[-2:][::-1])


def fields_behind(config: ModelConfig, shapes: Callable[[ModelConfig], Shapes], name: str, found: Shape) -> list[str]:
    """Paths in config.json, with their values, that the differing axes of a tensor's shape depend on."""
    want = shapes(config)[name]
    axes = [a for a in range(min(len(want), len(found))) if want[a] != found[a]]
    behind = []
    for path, value, changed in _variants(config):
        try:
            shape = shapes(changed).get(name, want)
        except (VlconvError, ValueError, ZeroDivisionError):
            continue
        if any(shape[a] != want[a] for a in axes if a < len(shape)):
            behind.append(f"{path} = {value}")
    return behind


def _variants(config: ModelConfig) -> Iterator[tuple[str, int, ModelConfig]]:
    """The config with one integer doubled, for each integer."""
    flat = model_of(config).traits.flat_config
    for part, kind in (("text", TextConfig), ("vision", VisionConfig)):
        section: TextConfig | VisionConfig | None = getattr(config, part)
        if section is None:
            continue
        for field in fields(section):
            value = getattr(section, field.name)
            if type(value) is int and value:
                doubled: dict[str, Any] = {field.name: 2 * value}
                changed: dict[str, Any] = {part: replace(section, **doubled)}
                yield hf_path(kind, field.name, flat=flat), value, replace(config, **changed)
