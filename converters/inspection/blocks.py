"""The modules of a model as a tree, drawn from the names of its tensors; numbered ones that are alike count once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ..tensors.spec import TensorSpec

LEVELS = 40
"""Of names, as deep as modules are told apart: no model has more, and a stranger's name may have any number."""


@dataclass(frozen=True)
class Block:
    """A module, or several that are alike.

    Attributes:
        name: what its tensors' names have more than those of the block above: "self_attention.linear_qkv".
        numbers: of modules that are alike, as ranges: "0-27"; "" of a single one.
        times: how many there are.
        tensors, parameters: in all of them.
        dtypes: dtype -> elements, in all of them.
        blocks: in one of them.
    """

    name: str
    numbers: str
    times: int
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    blocks: tuple[Block, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of it."""
        return {
            "name": self.name,
            "numbers": self.numbers,
            "times": self.times,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "dtypes": dict(self.dtypes),
            "blocks": [block.as_dict() for block in self.blocks],
        }


@dataclass
class _Module:
    """A module: its own tensors by their last name, and the modules in it."""

    own: dict[str, TensorSpec] = field(default_factory=dict)
    inner: dict[str, _Module] = field(default_factory=dict)
    _form: Any = None

    @property
    def form(self) -> Any:
        """What two modules have in common that are alike: names, shapes and dtypes."""
        if self._form is None:
            own = tuple(sorted((name, spec.shape, spec.dtype) for name, spec in self.own.items()))
            self._form = own, tuple(sorted((name, module.form) for name, module in self.inner.items()))
        return self._form

    @property
    def numbered(self) -> bool:
        """Whether it is a list of modules."""
        return bool(self.inner) and not self.own and all(_is_number(name) for name in self.inner)

    def specs(self) -> Iterator[TensorSpec]:
        """All tensors in it."""
        yield from self.own.values()
        for module in self.inner.values():
            yield from module.specs()


def blocks_of(tensors: Iterable[TensorSpec]) -> tuple[Block, ...]:
    """The tree of some tensors, in the order of their names' first appearance."""
    root = _Module()
    for spec in tensors:
        *path, last = spec.name.split(".", LEVELS)
        module = root
        for part in path:
            module = module.inner.setdefault(part, _Module())
        module.own[last] = spec
    own = [_block(name, _Module({name: spec})) for name, spec in root.own.items()]
    return (*own, *(_block(name, module) for name, module in root.inner.items()))


def _block(name: str, module: _Module) -> Block:
    while len(module.inner) == 1 and not module.own and not module.numbered:
        (inner, module), *_ = module.inner.items()
        name = f"{name}.{inner}"
    if not module.numbered:
        return _sized(name, [module], "", tuple(_block(n, m) for n, m in module.inner.items()))
    alike: dict[Any, list[str]] = {}
    for number, inner_module in module.inner.items():
        alike.setdefault(inner_module.form, []).append(number)
    groups = [_alike("", module, numbers) for numbers in alike.values()]
    if len(groups) == 1:
        return _alike(name, module, next(iter(alike.values())))
    return _sized(name, [module], "", tuple(groups))


def _alike(name: str, module: _Module, numbers: list[str]) -> Block:
    one = module.inner[numbers[0]]
    return _sized(
        name,
        [module.inner[number] for number in numbers],
        ranges(map(int, numbers)),
        tuple(_block(n, m) for n, m in one.inner.items()),
    )


def _sized(name: str, modules: list[_Module], numbers: str, blocks: tuple[Block, ...]) -> Block:
    elements: Counter[str] = Counter()
    count = 0
    for module in modules:
        for spec in module.specs():
            elements[spec.dtype] += prod(spec.shape)
            count += 1
    return Block(name, numbers, len(modules), count, elements.total(), dict(elements), blocks)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as people write them: [0, 1, 2, 5] -> "0-2, 5"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10
