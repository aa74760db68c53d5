"""Hybrids, Qwen3.5 and Qwen3-Next: what megatron-core's own Gated DeltaNets, gated attention, shared experts and MTP
head hold comes back bit for bit.

Expected values come from tests/mcore/hybrid, which knows nothing of vlconv's tables. What is written for megatron-core
is in test_hybrid_written.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from converting import Tensors, pairs, slow, to_hf
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny_hybrid
from mcore.topology import Form, Topology
from references import differing

from vlconv.converters.errors import MismatchError

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

MOE = ("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next")
TOWER = ("qwen3_5", "qwen3_5_moe")
FACTORS = {
    "kind": ("qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"),
    "mtp": (0, 1),
    "tied": (False, True),
    "tp": (1, 2, 4),
    "pp": (1, 2),
    "ep": (1, 2),
    "form": ("stacked", "per_layer", "singleton"),
    "padded": (False, True),
}


class Case(NamedTuple):
    """How a checkpoint was saved; fields in the order of FACTORS."""

    kind: str
    mtp: int
    tied: bool
    tp: int
    pp: int
    ep: int
    form: Form
    padded: bool

    @property
    def topology(self) -> Topology:
        return Topology(tp=self.tp, pp=self.pp, ep=self.ep, etp=1 if self.ep > 1 else None)

    @property
    def occurs(self) -> bool:
        """Experts are there to be spread, and no tied embedding stands before an MTP head in a pipeline: megatron-core
        cannot save that.
        """
        return (self.ep == 1 or self.kind in MOE) and not (self.tied and self.mtp and self.pp > 1)

    def __str__(self) -> str:
        words = [*["mtp"] * self.mtp, *["tied"] * self.tied, str(self.topology), self.form, *["padded"] * self.padded]
        return "-".join([self.kind, *words])


PRODUCT = [case for case in map(Case._make, product(*FACTORS.values())) if case.occurs]
PAIRWISE = [
    Case("qwen3_5", 0, False, 4, 1, 1, "per_layer", False),
    Case("qwen3_5", 0, True, 1, 2, 1, "singleton", False),
    Case("qwen3_5", 0, True, 2, 1, 1, "stacked", False),
    Case("qwen3_5", 1, False, 2, 1, 1, "singleton", True),
    Case("qwen3_5_moe", 0, False, 2, 2, 1, "stacked", False),
    Case("qwen3_5_moe", 0, False, 4, 2, 2, "per_layer", True),
    Case("qwen3_5_moe", 1, True, 1, 1, 2, "singleton", False),
    Case("qwen3_5_moe_text", 0, True, 4, 1, 1, "singleton", False),
    Case("qwen3_5_moe_text", 1, False, 1, 2, 1, "per_layer", True),
    Case("qwen3_5_moe_text", 1, False, 2, 1, 2, "stacked", False),
    Case("qwen3_5_text", 0, True, 1, 2, 1, "per_layer", False),
    Case("qwen3_5_text", 1, False, 2, 1, 1, "singleton", False),
    Case("qwen3_5_text", 1, False, 4, 2, 1, "stacked", True),
    Case("qwen3_next", 0, False, 4, 2, 1, "singleton", False),
    Case("qwen3_next", 0, True, 2, 1, 1, "per_layer", True),
    Case("qwen3_next", 1, True, 1, 1, 2, "stacked", False),
]
MORE = [case for i, case in enumerate(PRODUCT) if i % 5 == 0 and case not in PAIRWISE]
"""A fifth of them: 5 has no factor in common with any count of FACTORS but the number of kinds."""


def test_every_pair_that_can_occur_is_covered() -> None:
    assert len(PRODUCT) == 1008
    assert set(PAIRWISE) <= set(PRODUCT)
    assert pairs(PAIRWISE) == pairs(PRODUCT)


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_topologies(tmp_path: Path, case: Case) -> None:
    comes_back(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE, ids=str)
def test_more_topologies(tmp_path: Path, case: Case) -> None:
    comes_back(tmp_path, case)


def comes_back(tmp_path: Path, case: Case) -> None:
    """Save, convert, compare every tensor and what is told."""
    config = tiny_hybrid(case.kind, case.tied, mtp=case.mtp)
    hf = random_hf_tensors(config)
    source = save(tmp_path / "ckpt", config, hf, case.topology, case.form, padded=case.padded)
    found, report = to_hf(tmp_path, source, config)
    assert differing(found, hf) == []
    assert report.data["tensors"] == len(hf)
    assert report.data["layout"] == ("mbridge" if case.kind in TOWER else "megatron-lm")
    assert (report.data["tied"], report.warnings) == (case.tied, [])
    # 248 rows are padded to a multiple of 128 x tp.
    assert report.data["padding_rows"] == (-248 % (128 * case.tp) if case.padded else 0)
    assert report.data["agrees_with"] == ["the checkpoint's args"]
    assert report.told["computed"].startswith("3 tensors are the source's plus one (")
    assert (report.data["rounded"]["rounded"], report.data["rounded"]["elements"]) == (0, 60)


@pytest.mark.parametrize(
    ("kind", "topology", "how"),
    [
        slow("qwen3_5", Topology(tp=2, pp=2), {"args": False}),
        slow("qwen3_5_text", Topology(pp=2, vpp=2), {}),
        ("qwen3_next", Topology(tp=2, ep=2), {"grouped": False}),
        ("qwen3_5_moe", Topology(pp=2, first=1), {"common": "object"}),
        slow("qwen3_5_moe_text", Topology(ep=3), {}),
    ],
    ids=str,
)
def test_other_modules(tmp_path: Path, kind: str, topology: Topology, how: dict[str, Any]) -> None:
    config = tiny_hybrid(kind)
    hf = random_hf_tensors(config)
    found, _ = to_hf(tmp_path, save(tmp_path / "ckpt", config, hf, topology, **how), config)
    assert differing(found, hf) == []


def test_other_layers_attend(tmp_path: Path) -> None:
    """Which, the checkpoint shows, and config.json's layer_types say."""
    config = tiny_hybrid("qwen3_5", linear_layers=[1, 4], layers=6)
    hf = random_hf_tensors(config)
    source = save(tmp_path / "ckpt", config, hf, Topology(tp=2, pp=2))
    assert differing(to_hf(tmp_path, source, config)[0], hf) == []
    with pytest.raises(MismatchError, match="layer_types"):
        to_hf(tmp_path / "other", source, tiny_hybrid("qwen3_5", layers=6, linear_layers=[0, 4]))


class TestDtypes:
    """On the Hub Qwen3.5 has decays and output norms in float32, Qwen3.6 in bfloat16; in Megatron they are bfloat16."""

    @pytest.mark.parametrize("kind", ["qwen3_5", slow("qwen3_5_moe_text")])
    def test_as_the_references_weights(self, tmp_path: Path, kind: str) -> None:
        config = tiny_hybrid(kind)
        hf = wide(random_hf_tensors(config))
        source = save(tmp_path / "ckpt", config, hf, Topology(tp=2), args=False)
        found, report = to_hf(tmp_path, source, config, weights=wide(random_hf_tensors(config, seed=7)))
        assert differing(found, hf) == []
        assert "6 bfloat16 to float32" in report.told["reference_dtypes"]

    def test_bfloat16_where_the_reference_has_no_weights(self, tmp_path: Path) -> None:
        config = tiny_hybrid("qwen3_5_text")
        hf = random_hf_tensors(config)
        source = save(tmp_path / "ckpt", config, wide(hf), Topology(tp=2))
        assert differing(to_hf(tmp_path, source, config)[0], hf) == []

    def test_what_megatron_has_rounded(self, tmp_path: Path) -> None:
        """bfloat16(norm - 1) + 1 in float32 is what a trained checkpoint says; nothing is rounded again."""
        config = tiny_hybrid("qwen3_5")
        fine = random_hf_tensors(config, float32=["*linear_attn.norm.weight", "*A_log"])
        source = save(tmp_path / "ckpt", config, fine, Topology(tp=2))
        found, report = to_hf(tmp_path, source, config, weights=fine)
        held = {n: (t - 1).bfloat16().float() + 1 for n, t in fine.items() if n.endswith("linear_attn.norm.weight")}
        held |= {n: t.bfloat16().float() for n, t in fine.items() if n.endswith("A_log")}
        assert not any(torch.equal(fine[name], tensor) for name, tensor in held.items())
        assert differing(found, fine | held) == []
        assert report.data["rounded"]["rounded"] == 0

    def test_trained_norms_are_rounded_and_counted(self, tmp_path: Path) -> None:
        config = tiny_hybrid("qwen3_5_text")
        fine = random_hf_tensors(config, float32=["*linear_attn.norm.weight"])
        found, report = to_hf(tmp_path, save(tmp_path / "ckpt", config, fine, Topology()), config)
        held = {n: (t - 1).bfloat16().float() + 1 for n, t in fine.items() if n.endswith("linear_attn.norm.weight")}
        written = {name: tensor.bfloat16() for name, tensor in held.items()}
        assert differing(found, fine | written) == []
        count = sum(int((held[name] != tensor.float()).sum()) for name, tensor in written.items())
        assert 10 < count == report.data["rounded"]["rounded"]


def wide(hf: Tensors) -> Tensors:
    """The same numbers, decays and output norms in float32."""
    ends = ("linear_attn.norm.weight", "A_log")
    return {name: tensor.float() if name.endswith(ends) else tensor for name, tensor in hf.items()}


class TestHeads:
    @pytest.mark.parametrize("packed", [False, True])
    def test_experts_are_as_in_the_reference(self, tmp_path: Path, packed: bool) -> None:
        """One by one in Qwen3.5, packed in Qwen3.6."""
        config = tiny_hybrid("qwen3_5_moe")
        hf = random_hf_tensors(config, packed_mtp=packed)
        source = save(tmp_path / "ckpt", config, hf, Topology(tp=2, ep=2, etp=1))
        reference = random_hf_tensors(config, seed=7, packed_mtp=packed)
        assert differing(to_hf(tmp_path, source, config, weights=reference)[0], hf) == []
        assert ("mtp.layers.0.mlp.experts.down_proj" in hf) is packed

    @pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_next"])
    def test_left_behind(self, tmp_path: Path, kind: str) -> None:
        config = tiny_hybrid(kind)
        hf = random_hf_tensors(config)
        found, report = to_hf(tmp_path, save(tmp_path / "ckpt", config, hf, Topology()), config, mtp="drop")
        assert differing(found, {name: t for name, t in hf.items() if not name.startswith("mtp.")}) == []
        assert len(report.data["left_behind"]) > 10

    def test_a_promise_of_one_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        config = tiny_hybrid("qwen3_5_moe_text", mtp=0)
        source = save(tmp_path / "ckpt", config, random_hf_tensors(config), Topology(), args=False)
        with pytest.raises(MismatchError, match="promises a multi-token-prediction head"):
            to_hf(tmp_path, source, tiny_hybrid("qwen3_5_moe_text"))


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("linear_num_key_heads", {"key_heads": 2, "key_dim": 16}),
        ("linear_num_value_heads", {"value_heads": 4, "value_dim": 60}),
        ("linear_conv_kernel_dim", {"kernel": 5}),
        ("shared_expert_intermediate_size", {"shared_ffn": 40}),
    ],
)
def test_another_reference_is_refused(tmp_path: Path, field: str, other: dict[str, int]) -> None:
    """Shapes show most; that 4 key heads of 8 are no 2 of 16, only args say."""
    config = tiny_hybrid("qwen3_next")
    source = save(tmp_path / "ckpt", config, random_hf_tensors(config), Topology())
    with pytest.raises(MismatchError, match=field):
        to_hf(tmp_path, source, tiny_hybrid("qwen3_next", **other))
