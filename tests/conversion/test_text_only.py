"""Text-only models, Qwen2.5, Qwen3 and Qwen3-MoE: what megatron-core's GPTModel saves comes back bit for bit, and it
loads in its strictest mode what is written for it.

Expected values come from tests/mcore/formulas.py, which knows nothing of vlconv's tables.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import dcp
import pytest
from converting import pairs, sizes, slow, to_hf, to_mcore
from mcore.legacy import load_legacy, save_legacy
from mcore.load import load_and_compare
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny_text
from mcore.topology import Form, Topology
from references import differing, read_hf, write_reference

from vlconv.converters import Mcore2McoreOptions, Report, VerifyOptions, mcore2hf, mcore2mcore, verify

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

FORMS = {
    "stacked": "layers stacked",
    "per_layer": "one key per layer",
    "singleton": "one key per layer, singleton shards",
}
FACTORS = {
    "kind": ("qwen2", "qwen3", "qwen3_moe"),
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
    tied: bool
    tp: int
    pp: int
    ep: int
    form: Form
    padded: bool

    @property
    def topology(self) -> Topology:
        return Topology(tp=self.tp, pp=self.pp, ep=self.ep, etp=1 if self.ep > 1 else None)

    def __str__(self) -> str:
        return "-".join([self.kind, *["tied"] * self.tied, str(self.topology), self.form, *["padded"] * self.padded])


PRODUCT = [case for case in map(Case._make, product(*FACTORS.values())) if case.ep == 1 or case.kind == "qwen3_moe"]
PAIRWISE = [
    Case("qwen2", False, 4, 2, 1, "stacked", False),
    Case("qwen2", True, 1, 1, 1, "singleton", True),
    Case("qwen2", True, 2, 1, 1, "per_layer", True),
    Case("qwen3", False, 1, 2, 1, "per_layer", True),
    Case("qwen3", False, 4, 1, 1, "per_layer", False),
    Case("qwen3", True, 1, 1, 1, "stacked", False),
    Case("qwen3", True, 2, 2, 1, "singleton", False),
    Case("qwen3_moe", False, 2, 2, 2, "stacked", True),
    Case("qwen3_moe", False, 4, 1, 2, "singleton", True),
    Case("qwen3_moe", True, 1, 2, 2, "per_layer", False),
    Case("qwen3_moe", True, 4, 1, 1, "per_layer", True),
]


def test_every_pair_that_can_occur_is_covered() -> None:
    assert len(PRODUCT) == 288
    assert set(PAIRWISE) <= set(PRODUCT)
    assert pairs(PAIRWISE) == pairs(PRODUCT)


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_topologies(tmp_path: Path, case: Case) -> None:
    comes_back(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in PRODUCT if case not in PAIRWISE], ids=str)
def test_all_topologies(tmp_path: Path, case: Case) -> None:
    comes_back(tmp_path, case)


def comes_back(tmp_path: Path, case: Case) -> None:
    """Save, convert, compare every tensor and what is told."""
    config = tiny_text(case.kind, case.tied)
    hf = random_hf_tensors(config)
    source = save(tmp_path / "ckpt", config, hf, case.topology, case.form, padded=case.padded)
    found, report = to_hf(tmp_path, source, config)
    assert differing(found, hf) == []
    assert report.data["tensors"] == len(hf)
    assert (report.data["layout"], report.data["form"]) == ("megatron-lm", FORMS[case.form])
    assert (report.data["tied"], report.warnings) == (case.tied, [])
    # 248 rows are padded to a multiple of 128 x tp.
    assert report.data["padding_rows"] == (-248 % (128 * case.tp) if case.padded else 0)
    assert report.data["agrees_with"] == ["the checkpoint's args"]


CONFIGS = {
    "qwen2": tiny_text("qwen2"),
    "qwen2 tied": tiny_text("qwen2", tied=True),
    "qwen3": tiny_text("qwen3"),
    "qwen3 tied": tiny_text("qwen3", tied=True),
    "moe": tiny_text("qwen3_moe"),
    "moe tied": tiny_text("qwen3_moe", tied=True),
    "mixed": tiny_text("qwen3_moe", dense_layers=[0, 2]),
}


@pytest.mark.parametrize(
    ("name", "topology", "how"),
    [
        ("qwen3", Topology(tp=2, pp=2), {"spec": "local"}),
        ("qwen2", Topology(tp=2, pp=2, vpp=2), {"args": False}),
        ("moe", Topology(tp=2, ep=2), {"grouped": False}),
        ("mixed", Topology(tp=2, ep=2, etp=1), {}),
    ],
    ids=str,
)
def test_other_modules(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    hf = random_hf_tensors(CONFIGS[name])
    found, report = to_hf(tmp_path, save(tmp_path / "ckpt", CONFIGS[name], hf, topology, **how), CONFIGS[name])
    assert differing(found, hf) == []
    assert report.data["layout"] == "megatron-lm"


def test_experts_are_on_the_hub_each_by_itself(tmp_path: Path) -> None:
    """As every release has them: asked for or not."""
    config = CONFIGS["moe"]
    hf = random_hf_tensors(config)
    source = save(tmp_path / "ckpt", config, hf, Topology(ep=2))
    for experts in ("hub", "per-expert"):
        found, _ = to_hf(tmp_path, source, config, experts=experts, overwrite=True)
        assert "model.layers.3.mlp.experts.2.gate_proj.weight" in found
        assert differing(found, hf) == []


class TestWritten:
    @pytest.mark.parametrize(
        ("name", "topology"),
        [
            slow("qwen2", Topology(tp=2, pp=2)),
            ("qwen2 tied", Topology(tp=4)),
            ("qwen3", Topology(tp=2, pp=2, vpp=2)),
            slow("qwen3 tied", Topology(pp=2)),
            slow("moe", Topology(tp=2, ep=2)),
            ("moe tied", Topology(tp=2, ep=2, etp=1)),
            ("mixed", Topology(tp=2, pp=2)),
        ],
        ids=str,
    )
    def test_loaded_by_megatron_core(self, tmp_path: Path, name: str, topology: Topology) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        report = to_mcore(tmp_path, CONFIGS[name], hf)
        assert report.data["target_layout"] == "megatron-lm"
        assert load_and_compare(tmp_path / "mcore" / "release", CONFIGS[name], hf, topology) == []

    def test_padded_and_a_key_for_each_layer(self, tmp_path: Path) -> None:
        config, hf = CONFIGS["qwen3"], random_hf_tensors(CONFIGS["qwen3"])
        to_mcore(tmp_path, config, hf, per_layer=True, make_vocab_size_divisible_by=256)
        release = tmp_path / "mcore" / "release"
        assert dcp.shapes(release)["embedding.word_embeddings.weight"] == (256, 64)
        assert "decoder.layers.3.mlp.linear_fc2.weight" in dcp.shapes(release)
        assert load_and_compare(release, config, hf, Topology(tp=2), padded=True) == []

    @pytest.mark.parametrize("name", ["qwen2", "moe"])
    def test_keys_are_those_that_megatron_core_writes(self, tmp_path: Path, name: str) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        to_mcore(tmp_path, CONFIGS[name], hf)
        theirs = dcp.load(save(tmp_path / "theirs", CONFIGS[name], hf, Topology(), optimizer=False))
        theirs.pop("common_state/shard_0_1", None)  # of newer releases, which still read common.pt
        assert dcp.load(tmp_path / "mcore" / "release").keys() == theirs.keys()

    def test_the_way_back_needs_no_reference(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(CONFIGS["qwen2"])
        to_mcore(tmp_path, CONFIGS["qwen2"], hf, make_vocab_size_divisible_by=128)
        assert mcore2hf(tmp_path / "mcore", tmp_path / "back").warnings == []
        assert differing(read_hf(tmp_path / "back"), hf) == []
        theirs, ours = (json.loads((tmp_path / d / "config.json").read_text()) for d in ("hf", "back"))
        assert {**theirs, "dtype": "bfloat16"} == {"torch_dtype": "bfloat16", **ours}


class TestRankFiles:
    @pytest.mark.parametrize(
        ("name", "topology", "how"),
        [
            ("qwen2", Topology(tp=2, pp=2), {"padded": True}),
            ("qwen3 tied", Topology(tp=2, pp=2, vpp=2), {}),
            ("moe", Topology(tp=2, pp=2, ep=2, etp=1), {"grouped": False}),
            slow("mixed", Topology(tp=2, ep=2), {"args": False}),
            slow("qwen2 tied", Topology(tp=4), {"args": False}),
            slow("qwen3", Topology(pp=3, first=1, last=2), {"spec": "local"}),
        ],
        ids=str,
    )
    def test_comes_back(self, tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        save_legacy(tmp_path / "ckpt", CONFIGS[name], hf, topology, **how)
        found, report = to_hf(tmp_path, tmp_path / "ckpt", CONFIGS[name])
        assert differing(found, hf) == []
        assert (report.data["format"], report.data["layout"], report.warnings) == ("torch", "megatron-lm", [])

    @pytest.mark.parametrize(
        ("name", "topology", "padded"),
        [
            ("qwen2 tied", Topology(tp=2, pp=2), True),
            ("qwen3", Topology(pp=3, first=1, last=2), False),
            ("moe", Topology(tp=2, pp=2, ep=2, etp=1), True),
            slow("mixed", Topology(tp=2, ep=2), False),
            slow("qwen2", Topology(tp=4), False),
            slow("qwen3 tied", Topology(tp=2, pp=2, vpp=2), False),
        ],
        ids=str,
    )
    def test_loaded_by_megatron_core(self, tmp_path: Path, name: str, topology: Topology, padded: bool) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        divisor = 128 if padded else None
        to_mcore(tmp_path, CONFIGS[name], hf, **sizes(topology), make_vocab_size_divisible_by=divisor)
        assert load_legacy(tmp_path / "mcore" / "release", CONFIGS[name], hf, topology, padded=padded) == []


@pytest.mark.parametrize(
    ("name", "asked"),
    [slow("qwen2 tied", Topology(tp=2, pp=2)), ("moe", Topology(tp=2, ep=2, etp=1))],
    ids=str,
)
def test_torch_dist_to_rank_files_and_back(tmp_path: Path, name: str, asked: Topology) -> None:
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    source = save(tmp_path / "ckpt", config, hf, Topology(pp=2), padded=True)
    reference = write_reference(tmp_path / "reference", config)
    options = Mcore2McoreOptions(reference=str(reference), **sizes(asked))
    moved(mcore2mcore(source, tmp_path / "ranks", options))
    assert load_legacy(tmp_path / "ranks" / "release", config, hf, asked) == []
    moved(mcore2mcore(tmp_path / "ranks", tmp_path / "back"))
    assert load_and_compare(tmp_path / "back" / "release", config, hf, Topology(tp=4)) == []
    report = verify(source, tmp_path / "back", VerifyOptions(references=(str(reference),)))
    assert (report.status, report.differences) == ("same", [])


def moved(report: Report) -> None:
    assert (report.status, report.data["layout"], report.data["target_layout"]) == ("done", *["megatron-lm"] * 2)
