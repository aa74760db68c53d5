"""Names of adapters: told from the base's, in every trainer's spelling; other forms are refused by name."""

from __future__ import annotations

import pytest

from vlconv.converters.adapters.names import Halves, Place, separate
from vlconv.converters.errors import CorruptError, MismatchError, UnsupportedError, VlconvError

P = "decoder.layers.0.self_attention.linear_qkv"
F = "decoder.layers.0.mlp.linear_fc1"
LORA = (f"{P}.adapter.linear_in.weight", f"{P}.adapter.linear_out.weight")


def same(*names: str) -> dict[str, str]:
    return {name: f"module.{name}" for name in names}


def test_without_an_adapter() -> None:
    assert separate(same(f"{P}.weight", "decoder.final_layernorm.weight")) == (
        same(f"{P}.weight", "decoder.final_layernorm.weight"),
        None,
    )


def test_megatron_bridge() -> None:
    base, found = separate(same(*LORA, f"{P}.to_wrap.weight", f"{P}.to_wrap.bias"))
    assert base == {f"{P}.weight": f"module.{P}.to_wrap.weight", f"{P}.bias": f"module.{P}.to_wrap.bias"}
    assert found and found.family == "megatron-bridge"
    assert found.halves == {Place(P): Halves(f"module.{LORA[0]}", f"module.{LORA[1]}")}


def test_ms_swift() -> None:
    a, b = f"{P}.lora_A.default.weight", f"{P}.lora_B.default.weight"
    base, found = separate(same(a, b, f"{P}.base_layer.weight", f"{P}.base_layer.layer_norm_weight"))
    assert set(base) == {f"{P}.weight", f"{P}.layer_norm_weight"}
    assert found and found.family == "ms-swift" and found.halves == {Place(P): Halves(f"module.{a}", f"module.{b}")}


def test_parts() -> None:
    listed = [f"{P}.adapter.adapter_{x}.linear_{y}.weight" for x in "qkv" for y in ("in", "out")]
    listed += [f"{F}.adapter.adapter_{x}.linear_{y}.weight" for x in ("gate", "up") for y in ("in", "out")]
    separated = separate(same(*listed))
    assert separated.alone and separated.adapter
    assert set(separated.adapter.halves) == {Place(P, x) for x in "qkv"} | {Place(F, x) for x in ("gate", "up")}
    assert separated.adapter.targets == (
        "linear_qkv (q)",
        "linear_qkv (k)",
        "linear_qkv (v)",
        "linear_fc1 (gate)",
        "linear_fc1 (up)",
    )


REFUSED: list[tuple[list[str], type[VlconvError], str]] = [
    ([*LORA, f"{P}.adapter.weight_magnitude"], UnsupportedError, "DoRA"),
    ([f"{P}.lora_magnitude_vector.default.weight"], UnsupportedError, "DoRA"),
    ([*LORA, "output_layer.modules_to_save.default.weight"], UnsupportedError, "trained whole"),
    ([*LORA, "output_layer.original_module.weight"], UnsupportedError, "trained whole"),
    ([f"{P}.lora_embedding_A.default"], UnsupportedError, "adapter of an embedding"),
    ([*LORA, f"{P}.adapter.linear_out.bias"], UnsupportedError, "a bias of an adapter"),
    ([f"{P}.adapter.1.linear_in.weight"], UnsupportedError, "of a form that vlconv does not know"),
    ([f"{P}.adapter.adapter_x.linear_in.weight"], UnsupportedError, "of a form that vlconv does not know"),
    (
        [f"{P}.lora_{x}.{name}.weight" for x in "AB" for name in ("first", "second")],
        UnsupportedError,
        "several adapters: first, second",
    ),
    (
        [*LORA, f"{F}.lora_A.default.weight", f"{F}.lora_B.default.weight"],
        UnsupportedError,
        "several adapters: of two families",
    ),
    ([LORA[0]], CorruptError, "is half of an adapter"),
    (
        [f"{P}.adapter.adapter_q.linear_{y}.weight" for y in ("in", "out")],
        UnsupportedError,
        "has adapters of q alone",
    ),
    ([*LORA, f"{P}.weight", f"{P}.to_wrap.weight"], MismatchError, "are the same tensor"),
    ([f"{P}.base_layer.weight"], CorruptError, "the adapter is not there"),
    ([*LORA, f"{F}.to_wrap.weight"], CorruptError, "the adapter is not there"),
    ([*LORA, "embedding.word_embeddings.weight"], UnsupportedError, "1 tensors that were trained whole"),
]


@pytest.mark.parametrize(("names", "kind", "what"), REFUSED)
def test_refused(names: list[str], kind: type[VlconvError], what: str) -> None:
    with pytest.raises(kind) as caught:
        separate(same(*names))
    assert type(caught.value) is kind and what in caught.value.what and caught.value.hint
