"""The tree of blocks: modules that are alike count once, others do not."""

from __future__ import annotations

from vlconv.converters.inspection.blocks import Block, blocks_of, ranges
from vlconv.converters.tensors.spec import TensorSpec


def tree(blocks: tuple[Block, ...]) -> list[object]:
    return [(b.name, b.numbers, b.times, b.tensors, b.parameters, tree(b.blocks)) for b in blocks]


def spec(name: str, *shape: int, dtype: str = "bfloat16") -> TensorSpec:
    return TensorSpec(name, shape, dtype)


def test_layers_that_are_alike() -> None:
    names = [spec(f"model.layers.{i}.mlp.fc.weight", 3, 4) for i in range(12)]
    found = blocks_of([*names, spec("model.norm.weight", 4)])
    layers = ("layers", "0-11", 12, 12, 144, [("mlp.fc", "", 1, 1, 12, [])])
    assert tree(found) == [("model", "", 1, 13, 148, [layers, ("norm", "", 1, 1, 4, [])])]


def test_layers_of_two_kinds_by_shape_and_by_dtype() -> None:
    names = [spec(f"layers.{i}.w", 2 if i == 3 else 1, dtype="float32" if i == 5 else "bfloat16") for i in range(7)]
    (layers,) = blocks_of(names)
    assert (layers.name, layers.times, layers.parameters) == ("layers", 1, 8)
    assert layers.dtypes == {"bfloat16": 7, "float32": 1}
    assert [(b.numbers, b.times, b.parameters) for b in layers.blocks] == [
        ("0-2, 4, 6", 5, 5),
        ("3", 1, 2),
        ("5", 1, 1),
    ]


def test_a_tensor_without_a_module() -> None:
    assert tree(blocks_of([spec("scale", 2)])) == [("scale", "", 1, 1, 2, [])]


def test_a_module_with_a_number_for_a_name_among_others() -> None:
    (block,) = blocks_of([spec("mlp.0.weight", 1), spec("mlp.gate.weight", 1)])
    assert [b.name for b in block.blocks] == ["0", "gate"]


def test_ranges() -> None:
    assert ranges([5, 0, 1, 2]) == "0-2, 5"
    assert ranges([7]) == "7"


def test_names_of_any_depth() -> None:
    (block,) = blocks_of([spec("a." * 5000 + "weight", 3), spec("a.b.weight", 1)])
    assert block.parameters == 4
