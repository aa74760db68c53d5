"""The way back to Megatron's keys: what is stacked, what is not, and that reading undoes it."""

from __future__ import annotations

import pytest

from vlconv.converters.errors import MismatchError
from vlconv.converters.formats.dcp.unfold import Key, alike, split, stack
from vlconv.converters.formats.keys import LISTS, fold
from vlconv.converters.tensors.spec import TensorSpec


def specs(*names, shape=(2, 3), dtype="bfloat16"):
    return {name: TensorSpec(name, shape, dtype) for name in names}


@pytest.mark.parametrize(
    ("name", "lists", "where"),
    [
        ("a.layers.3.b.weight", ("layers",), ("a.layers.b.weight", 3)),
        ("layers.0.b", ("layers",), ("layers.b", 0)),
        (
            "a.layers.12.mlp.experts.experts.linear_fc1.weight",
            ("layers",),
            ("a.layers.mlp.experts.experts.linear_fc1.weight", 12),
        ),
        (
            "v.deepstack_merger_list.1.norm.bias",
            ("layers", "deepstack_merger_list"),
            ("v.deepstack_merger_list.norm.bias", 1),
        ),
        ("v.deepstack_merger_list.1.norm.bias", ("layers",), None),
        ("a.layers.3.b.weight", (), None),
        ("a.layers.b.weight", ("layers",), None),
        ("v.blocks.3.weight", ("layers",), None),
        ("a.layers.3", ("layers",), ("a.layers", 3)),
        ("a.weight", ("layers",), None),
        ("mtp.layers.0.enorm.weight", ("layers",), None),
        ("a.mtp.layers.0.transformer_layer.", ("layers",), None),
        ("a.notmtp.layers.0.w", ("layers",), ("a.notmtp.layers.w", 0)),
    ],
)
def test_split(name, lists, where):
    assert split(name, lists) == where


def test_stacked_keys():
    found = stack(
        {
            **specs("a.layers.1.w", "a.layers.0.w"),
            **specs("a.norm", shape=(3,)),
            **specs("b.layers.0.w", dtype="float32"),
        },
        ("layers",),
    )
    assert found == [
        Key("a.norm", (3,), "bfloat16", ("a.norm",), stacked=False),
        Key("a.layers.w", (2, 2, 3), "bfloat16", ("a.layers.0.w", "a.layers.1.w"), stacked=True),
        Key("b.layers.w", (1, 2, 3), "float32", ("b.layers.0.w",), stacked=True),
    ]


def test_layers_are_in_order_of_their_numbers():
    names = [f"a.layers.{i}.w" for i in (10, 2, 1, 9, 0, 3, 4, 5, 6, 7, 8)]
    assert stack(specs(*names), ("layers",))[0].parts == tuple(f"a.layers.{i}.w" for i in range(11))


def test_one_key_per_layer():
    given = specs("a.layers.1.w", "a.layers.0.w", "a.norm")
    assert stack(given, ()) == [Key(n, (2, 3), "bfloat16", (n,), stacked=False) for n in given]


def test_reading_undoes_it():
    names = [
        "a.layers.0.w",
        "a.layers.1.w",
        "v.decoder.deepstack_merger_list.0.n",
        "a.layers.0.mlp.experts.experts.linear_fc1.weight",
        "z",
    ]
    for key in stack(specs(*names), LISTS):
        how = fold(key.name)
        assert how.stacked == key.stacked
        assert [how.name.replace("{}", str(i), 1) for i in range(len(key.parts))] == list(key.parts)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4), "bfloat16"), ((2, 3), "float32"), ((2,), "bfloat16")])
def test_layers_that_differ(shape, dtype):
    with pytest.raises(MismatchError) as caught:
        stack(specs("a.layers.0.w") | specs("a.layers.1.w", shape=shape, dtype=dtype), ("layers",))
    assert (
        "the layers of a.layers.w differ" in caught.value.what
        and f"{list(shape)} {dtype}" in caught.value.what
        and "[2, 3] bfloat16" in caught.value.what
    )
    assert "--dtype" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "lists"),
    [
        (["a.layers.0.w", "a.layers.1.w", "b"], ["a.layers"]),
        (["a.layers.0.w", "a.layers.1.w", "a.layers.0.v", "a.layers.1.v"], ["a.layers"]),
        (["a.layers.0.w", "a.layers.1.w", "v.layers.0.w"], ["a.layers", "v.layers"]),  # two lists of different length
        (
            ["a.layers.0.w", "a.layers.1.w", "a.layers.0.v", "v.layers.0.w"],
            ["v.layers"],
        ),  # a layer lacks a tensor, the other list is as it was
        (["a.layers.0.w", "a.layers.1.v"], []),
        (["a.layers.0.w", "a.layers.2.w"], []),  # a layer is missing
        (["a.layers.1.w"], []),
        (["a.layers.0.w", "a.layers.1.w", "mtp.layers.0.w", "a.mtp.layers.0.w"], ["a.layers"]),  # heads never are
        (["a", "b"], []),
    ],
)
def test_alike(names, lists):
    assert list(alike(names, ("layers",))) == lists


def test_a_list_by_its_path():
    assert split("a.layers.3.w", ("a.layers",)) == ("a.layers.w", 3)
    assert split("v.layers.3.w", ("a.layers",)) is None
