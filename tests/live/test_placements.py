"""placements: what is refused, what is told, and load_rank's manners. That they are right, test_ranks.py says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters.errors import ChangedError, MismatchError, VlconvError
from vlconv.converters.live import Rank, Topology, export_rank, live_model, load_rank, placements

DENSE, MOE, HYBRID = (tiny_config(kind) for kind in ("qwen3_vl", "qwen3_vl_moe", "qwen3_5"))
LAYER = "language_model.decoder.layers.0"


def test_json() -> None:
    """By hand: TP 2 of 8 heads in 4 groups of 16, the second rank; gate and up of 96 rows."""
    found = json.loads(json.dumps(placements(DENSE, None, Topology(tp=2), Rank(tp=1))))
    assert found[f"{LAYER}.mlp.linear_fc1.weight"] == [
        [
            [[0, 0], [48, 64]],
            "model.language_model.layers.0.mlp.gate_proj.weight",
            [[48, 0], [48, 64]],
            False,
            False,
            0,
        ],
        [[[48, 0], [48, 64]], "model.language_model.layers.0.mlp.up_proj.weight", [[48, 0], [48, 64]], False, False, 0],
    ]
    assert found[f"{LAYER}.mlp.linear_fc1.layer_norm_weight"] == [
        [[[0], [64]], "model.language_model.layers.0.post_attention_layernorm.weight", [[0], [64]], False, True, 0]
    ]


def test_what_is_added_is_said() -> None:
    found = placements(HYBRID, None, Topology(), Rank())
    added = {name for name, listed in found.items() if listed[0].add}
    assert {name.rpartition("self_attention.")[2] for name in added} == {"out_norm.weight"}
    assert {p.add for name in added for p in found[name]} == {1.0}


def test_a_transposed_expert() -> None:
    found = placements(MOE, None, Topology(ep=2), Rank(ep=1))
    (part,) = found[f"{LAYER}.mlp.experts.linear_fc1.weight1"]  # gate and up stand side by side on both sides
    assert part[:4] == (((0, 0), (48, 64)), part.hf_name, ((3, 0, 0), (1, 64, 48)), True)
    local = torch.arange(48 * 64).reshape(48, 64)
    assert torch.equal(part.local(local), local.T[None]) and part.hf(torch.zeros(4, 64, 48)).shape == (48, 64)


def test_padding_has_no_place() -> None:
    how: dict[str, Any] = {"make_vocab_size_divisible_by": 128}
    name = "language_model.embedding.word_embeddings.weight"
    rows = [placements(DENSE, None, Topology(tp=2), Rank(tp=tp), **how)[name] for tp in (0, 1)]  # 512 rows, 300 used
    assert [p.local_box.lengths for listed in rows for p in listed] == [(256, 64), (44, 64)]


@pytest.mark.parametrize(
    ("config", "topology", "rank", "said"),
    [
        (DENSE, Topology(tp=3), Rank(), "tensor parallel size 3 does not divide"),
        (DENSE, Topology(tp=8), Rank(), r"tensor parallel size 8 does not divide .*vision_config.num_heads"),
        (HYBRID, Topology(tp=4), Rank(), "num_key_value_heads = 2"),  # megatron-core forgets the gates there
        (DENSE, Topology(pp=3), Rank(), "4 layers do not divide"),
        (DENSE, Topology(ep=2), Rank(), "expert parallel size 2, but the model has no experts"),
        (MOE, Topology(ep=3), Rank(), "expert parallel size 3 does not divide"),
        (DENSE, Topology(tp=2), Rank(tp=2), "tp rank 2 is none of 2"),
        (DENSE, Topology(pp=2), Rank(vp=1), "vp rank 1 is none of 1"),
        (tiny_config("qwen3_vl", text={"vocab_size": 301}), Topology(tp=2), Rank(), "301 rows does not divide"),
    ],
)
def test_refused(config: dict[str, Any], topology: Topology, rank: Rank, said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        placements(config, None, topology, rank)


class TestNames:
    def names(self, **changes: str | None) -> list[str]:
        found = {name: name for name in placements(DENSE, None, Topology(pp=2), Rank(pp=1))}
        return [name for name in {**found, **changes}.values() if name]

    def test_those_of_the_chunk(self) -> None:
        given = [f"module.{name}" for name in self.names()] + ["module.decoder.layers.0.mlp._extra_state"]
        assert list(placements(DENSE, None, Topology(pp=2), Rank(pp=1), names=given)) == given[:-1]

    @pytest.mark.parametrize(
        ("name", "instead", "said"),
        [
            (f"{LAYER}.mlp.linear_fc2.weight", None, "has 1 tensors that are not among the names, such as"),
            ("extra", "language_model.embedding.word_embeddings.weight", "is no tensor of the model chunk 0 of"),
            ("twice", f"module.{LAYER}.mlp.linear_fc2.weight", "is no tensor twice"),
        ],
    )
    def test_others(self, name: str, instead: str | None, said: str) -> None:
        with pytest.raises(MismatchError, match=said):
            placements(DENSE, None, Topology(pp=2), Rank(pp=1), names=self.names(**{name: instead}))

    def test_a_head_that_is_not_there(self) -> None:
        model = live_model(HYBRID, mtp=False)
        names = list(placements(model, None, Topology(), Rank()))
        with pytest.raises(MismatchError, match=r"mtp\.layers(.|\n)*mtp=False"):
            placements(HYBRID, None, Topology(), Rank(), names=names)


class TestExport:
    def test_a_tensor_of_another_rank(self) -> None:
        state = {name: torch.zeros(1) for name in placements(DENSE, None, Topology(), Rank())}
        with pytest.raises(MismatchError, match=r"is \[1\]; this rank's is \[300, 64\]|is \[1\]; this rank's is"):
            list(export_rank(state, DENSE, None, Topology(), Rank()))


class TestLoading:
    def test_dtype(self, tmp_path: Path) -> None:
        hf = write_tiny_hf(tmp_path, DENSE)
        found = dict(load_rank(tmp_path, None, None, Topology(), Rank(), dtype="float32"))
        wanted = hf["model.language_model.layers.0.self_attn.o_proj.weight"].float()
        assert torch.equal(found[f"{LAYER}.self_attention.linear_proj.weight"], wanted)

    def test_computed_and_cast_are_rounded_once(self, tmp_path: Path) -> None:
        hf = write_tiny_hf(tmp_path, HYBRID, delta_dtype="bfloat16")
        found = dict(load_rank(tmp_path, None, None, Topology(), Rank(), dtype="float32"))
        wanted = hf["model.language_model.layers.0.linear_attn.norm.weight"].float() - 1
        assert torch.equal(found[f"{LAYER}.self_attention.out_norm.weight"], wanted)

    def test_wide_numbers_are_counted_down_before_they_are_rounded(self, tmp_path: Path) -> None:
        """Between 1 and 1.0078 bfloat16 has no number; minus one it has many."""
        name = "model.language_model.layers.0.linear_attn.norm.weight"
        hf = write_tiny_hf(tmp_path, HYBRID)
        assert hf[name].dtype == torch.float32
        hf[name] = 1 + torch.arange(16) * 2.0**-10
        write_weights(tmp_path, hf)
        found = dict(load_rank(tmp_path, None, None, Topology(), Rank(), dtype="bfloat16"))
        wanted = (torch.arange(16) * 2.0**-10).bfloat16()
        assert torch.equal(found[f"{LAYER}.self_attention.out_norm.weight"], wanted)
        assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}

    def test_without_the_head(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path, HYBRID)
        model = live_model(tmp_path, mtp=False)
        assert not any("mtp." in name for name, _ in load_rank(tmp_path, model, None, Topology(), Rank()))

    def test_a_head_that_nobody_saved(self, tmp_path: Path) -> None:
        hf = write_tiny_hf(tmp_path, HYBRID)
        write_weights(tmp_path, {name: tensor for name, tensor in hf.items() if not name.startswith("mtp.")})
        with pytest.raises(VlconvError, match="promises a multi-token-prediction head"):
            list(load_rank(tmp_path, None, None, Topology(), Rank()))
        found = dict(load_rank(tmp_path, live_model(tmp_path, mtp=False), None, Topology(), Rank()))
        assert found and not any("mtp." in name for name in found)

    def test_another_model(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path, DENSE)
        other = tiny_config("qwen3_vl", text={"intermediate_size": 48})
        with pytest.raises(MismatchError, match="another model than the config"):
            next(load_rank(tmp_path, other, None, Topology(), Rank()))

    def test_a_directory_that_changes(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path, DENSE)
        reading = load_rank(tmp_path, None, None, Topology(), Rank())
        next(reading)
        write_tiny_hf(tmp_path, DENSE, seed=1)
        with pytest.raises(ChangedError, match="changed while it was read"):
            list(reading)
