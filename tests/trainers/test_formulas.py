"""The formulas held against what trainers save, written out: every row in its place, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from logits import forward, load
from tiny import tiny_config, tiny_weights, write_tiny_hf

from . import delta_net
from .attention import attention, gates_behind, grouped
from .decoder import experts
from .hub import shapes
from .sizes import Sizes, sizes

SMALL: dict[str, Any] = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 1,
    "linear_value_head_dim": 1,
}
"""Heads of one row each: a row is a head."""

QUERIES = "q0 g0 q1 g1 q2 g2 q3 g3"
FLAT = {
    "in_proj_qkv": "q0 q1 k0 k1 v0 v1 v2 v3",
    "in_proj_z": "z0 z1 z2 z3",
    "in_proj_b": "b0 b1 b2 b3",
    "in_proj_a": "a0 a1 a2 a3",
}
FUSED = {"in_proj_qkvz": "q0 k0 v0 v1 z0 z1 q1 k1 v2 v3 z2 z3", "in_proj_ba": "b0 b1 a0 a1 b2 b3 a2 a3"}


class Words:
    """Tensors whose rows are words, and words of tensors."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def rows(self, said: str, *tail: int) -> torch.Tensor:
        """A row per word, each filled with the word's number."""
        words = said.split()
        self.known += [word for word in words if word not in self.known]
        numbers = torch.tensor([float(self.known.index(word)) for word in words])
        return numbers.reshape(-1, *[1] * len(tail)).expand(-1, *tail).clone()

    def said(self, t: torch.Tensor) -> str:
        """The words of a tensor's rows."""
        return " ".join(self.known[int(row.flatten()[0])] for row in t)


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def small() -> Sizes:
    return sizes(tiny_config("qwen3_5", text=SMALL))


def hub_delta_net(words: Words, projections: dict[str, str]) -> dict[str, torch.Tensor]:
    layer = {f"linear_attn.{name}.weight": words.rows(said, 3) for name, said in projections.items()}
    layer["linear_attn.conv1d.weight"] = words.rows("q0 q1 k0 k1 v0 v1 v2 v3", 1, 4)
    one = {f"linear_attn.{name}": torch.ones(2) for name in ("A_log", "dt_bias", "norm.weight", "out_proj.weight")}
    return layer | one | {"input_layernorm.weight": torch.zeros(3, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (gates_behind, "q0 q1 g0 g1 k0 v0 q2 q3 g2 g3 k1 v1"),
        (grouped, "q0 g0 q1 g1 k0 v0 q2 g2 q3 g3 k1 v1"),
    ],
    ids=["megatron-core", "ms-swift"],
)
def test_gated_attention(words: Words, small: Sizes, order: Any, expected: str) -> None:
    layer = {"self_attn.q_proj.weight": words.rows(QUERIES, 3), "self_attn.o_proj.weight": torch.zeros(3, 4)}
    layer |= {f"self_attn.{x}_proj.weight": words.rows(f"{x}0 {x}1", 3) for x in "kv"}
    assert words.said(attention(small, layer, order)["self_attention.linear_qkv.weight"]) == expected


@pytest.mark.parametrize("projections", [FLAT, FUSED], ids=["Qwen3.5", "Qwen3-Next"])
class TestDeltaNet:
    def test_of_megatron_core(self, words: Words, small: Sizes, projections: dict[str, str]) -> None:
        made = delta_net.core(small, hub_delta_net(words, projections))
        said = {n.removeprefix("self_attention."): words.said(t) for n, t in made.items() if t.dim() > 1}
        assert said == {
            "in_proj.weight.query": "q0 q1",
            "in_proj.weight.key": "k0 k1",
            "in_proj.weight.value": "v0 v1 v2 v3",
            "in_proj.weight.z": "z0 z1 z2 z3",
            "in_proj.weight.beta": "b0 b1 b2 b3",
            "in_proj.weight.alpha": "a0 a1 a2 a3",
            "conv1d.weight.query": "q0 q1",
            "conv1d.weight.key": "k0 k1",
            "conv1d.weight.value": "v0 v1 v2 v3",
        }

    def test_of_ms_swift(self, words: Words, small: Sizes, projections: dict[str, str]) -> None:
        made = delta_net.swift(small, hub_delta_net(words, projections))
        said = {n.removeprefix("self_attention."): words.said(t) for n, t in made.items() if t.dim() > 1}
        assert said == {
            "in_proj.weight": "q0 k0 v0 v1 z0 z1 b0 b1 a0 a1 q1 k1 v2 v3 z2 z3 b2 b3 a2 a3",
            "conv1d.weight": "q0 k0 v0 v1 q1 k1 v2 v3",
        }

    def test_of_ms_swift_decoupled(self, words: Words, small: Sizes, projections: dict[str, str]) -> None:
        made = delta_net.swift_decoupled(small, hub_delta_net(words, projections))
        said = {n.removeprefix("self_attention."): words.said(t) for n, t in made.items() if t.dim() > 1}
        assert said == {
            "in_proj_qkvz.weight": "q0 k0 v0 v1 z0 z1 q1 k1 v2 v3 z2 z3",
            "in_proj_ba.weight": "b0 b1 a0 a1 b2 b3 a2 a3",
            "conv1d.weight": "q0 k0 v0 v1 q1 k1 v2 v3",
        }

    @pytest.mark.parametrize("trainer", [delta_net.swift_hf, delta_net.slime])
    def test_inside(self, words: Words, small: Sizes, projections: dict[str, str], trainer: Any) -> None:
        layer = hub_delta_net(words, projections)
        at = "self_attention." if trainer is delta_net.swift_hf else "self_attention.linear_attn."
        made = trainer(small, layer)
        for name, t in layer.items():
            if name.startswith("linear_attn."):
                assert torch.equal(made[at + name.removeprefix("linear_attn.")].float(), t)
        assert len(made) == len(layer)


def test_what_the_hub_has_in_float32_is_rounded_once(small: Sizes) -> None:
    layer = hub_delta_net(Words(), FLAT)
    layer["linear_attn.norm.weight"] = torch.tensor([1.001, 0.3, 2.5])
    layer["linear_attn.A_log"] = torch.tensor([1.001, -0.3, 2.5])
    core, swift = delta_net.core(small, layer), delta_net.swift(small, layer)
    # 1.001 - 1 keeps its digits; rounded to bfloat16 first it would be 0
    assert core["self_attention.out_norm.weight"].tolist() == [0.00099945068359375, -0.69921875, 1.5]
    assert swift["self_attention.out_norm.weight"].tolist() == [1.0, 0.30078125, 2.5]
    assert core["self_attention.A_log"].tolist() == swift["self_attention.A_log"].tolist() == [1.0, -0.30078125, 2.5]
    for trainer in (delta_net.core, delta_net.swift, delta_net.swift_decoupled, delta_net.swift_hf, delta_net.slime):
        assert {t.dtype for t in trainer(small, layer).values()} == {torch.bfloat16}


def test_experts_in_every_form(words: Words) -> None:
    """gate and up of expert e are rows ge and ue, down is a column."""
    one = {f"{e}.{x}_proj.weight": words.rows(f"{x}{e}", 2) for e in range(4) for x in ("gate", "up", "down")}
    one = {name: t.T if "down" in name else t for name, t in one.items()}
    fused = [torch.cat([one[f"{e}.gate_proj.weight"], one[f"{e}.up_proj.weight"]]) for e in range(4)]
    packed = {
        "gate_up_proj": torch.stack(fused),
        "down_proj": torch.stack([one[f"{e}.down_proj.weight"] for e in range(4)]),
    }
    turned = {name: t.transpose(1, 2).contiguous() for name, t in packed.items()}
    for kind, form in (("qwen3_moe", one), ("qwen3_5_moe", one), ("qwen3_5_moe", packed), ("qwen3_vl_moe", turned)):
        layer = {f"mlp.experts.{name}": t for name, t in form.items()} | {"mlp.gate.weight": torch.zeros(4, 2)}
        made = experts(sizes(tiny_config(kind)), layer)
        assert made["mlp.experts.experts.linear_fc1.weight"].shape == (4, 2, 2)
        assert made["mlp.experts.experts.linear_fc2.weight"].shape == (4, 2, 1)
        for e in range(4):
            assert words.said(made["mlp.experts.experts.linear_fc1.weight"][e]) == f"gate{e} up{e}"
            assert words.said(made["mlp.experts.experts.linear_fc2.weight"][e]) == f"down{e} down{e}"


def test_qwen3_next_taken_apart_computes_the_same_as_qwen3_5(tmp_path) -> None:
    """The two are one computation, so transformers itself says what the rows of Qwen3-Next's projections are."""
    config = tiny_config("qwen3_next")
    tensors = write_tiny_hf(tmp_path / "next", config, tensors=tiny_weights(shapes(config)))
    expected = forward(load(tmp_path / "next"), config)
    other, apart = tiny_config("qwen3_5_moe_text", text={"mtp_num_hidden_layers": 0}), dict(tensors)
    s = sizes(config)
    for i in range(3):
        at = f"model.layers.{i}."
        layer = {n.removeprefix(at): t for n, t in tensors.items() if n.startswith(at)}
        q, k, v, z, b, a = delta_net.projections(s, layer)
        for name in ("qkvz", "ba"):
            del apart[f"{at}linear_attn.in_proj_{name}.weight"]
        four = {"qkv": torch.cat([q, k, v]), "z": z, "b": b, "a": a}
        apart |= {f"{at}linear_attn.in_proj_{name}.weight": t for name, t in four.items()}
    for at in [f"model.layers.{i}." for i in range(4)]:
        layer = {n.removeprefix(at): t for n, t in tensors.items() if n.startswith(at)}
        made = experts(s, layer)
        for n in [n for n in apart if n.startswith(f"{at}mlp.experts.")]:
            del apart[n]
        apart[f"{at}mlp.experts.gate_up_proj"] = made["mlp.experts.experts.linear_fc1.weight"]
        apart[f"{at}mlp.experts.down_proj"] = made["mlp.experts.experts.linear_fc2.weight"]
    write_tiny_hf(tmp_path / "other", other, tensors=apart)
    assert torch.allclose(forward(load(tmp_path / "other"), config), expected, atol=1e-5)
    assert shapes(other).keys() == apart.keys()
