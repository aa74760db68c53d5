"""mcore2mcore: a checkpoint in another format, topology or naming, with no Hugging Face directory in between.

And one model in every format and topology there is, all verified.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from mcore.legacy import load_legacy, save_legacy
from mcore.load import load_and_compare
from mcore.save import save
from mcore.sharded import save_fsdp, save_plain
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Form, Topology
from references import differing, read_hf, reference_config, write_hf, write_reference
from trainers.places import saved_names, write
from trainers.ranks import Grid, write_ranks

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2McoreOptions,
    Report,
    VerifyOptions,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.errors import MismatchError, UnsupportedError
from vlconv.converters.models.shared.config import ModelConfig

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

CONFIGS = {"dense": tiny(), "tied": tiny(tied=True), "moe": tiny(moe=True), "2.5": tiny_2_5()}

Tensors = dict[str, torch.Tensor]


def sizes(topology: Topology) -> dict[str, Any]:
    """The options that ask for rank files of a topology."""
    return {
        "format": "torch",
        "tensor_model_parallel_size": topology.tp,
        "pipeline_model_parallel_size": topology.pp,
        "virtual_pipeline_model_parallel_size": topology.vpp,
        "expert_model_parallel_size": topology.ep,
        "expert_tensor_parallel_size": topology.etp,
        "decoder_first_pipeline_num_layers": topology.first,
        "decoder_last_pipeline_num_layers": topology.last,
    }


class Relay:
    """A model, its Hugging Face tensors and what a conversion makes of a checkpoint of it."""

    def __init__(self, work: Path, name: str) -> None:
        self.work, self.config = work, CONFIGS[name]
        self.hf = random_hf_tensors(self.config)
        self.reference = write_reference(work / "reference", self.config)

    def convert(self, source: Path, **options: Any) -> Report:
        """To work/out."""
        report = mcore2mcore(
            source, self.work / "out", Mcore2McoreOptions(**{"reference": str(self.reference), **options})
        )
        assert report.status == "done"
        assert "optimizer" in report.told["weights_only"]
        return report

    def same(self, source: Path) -> Report:
        """Source and result verified against each other, and the result converted to Hugging Face, with no reference
        given.
        """
        report = verify(source, self.work / "out", VerifyOptions(references=(str(self.reference),)))
        assert (report.status, report.differences) == ("same", [])
        mcore2hf(self.work / "out", self.work / "back")
        assert differing(read_hf(self.work / "back"), self.hf) == []
        return report


class TestTopologies:
    @pytest.mark.parametrize(
        ("name", "saved", "asked"),
        [
            ("tied", Topology(tp=2), Topology(tp=2, pp=2)),
            ("moe", Topology(tp=2, pp=2), Topology(tp=2, ep=2, etp=1)),
            pytest.param("2.5", Topology(pp=2), Topology(tp=2, pp=2, vpp=2), marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_torch_dist_to_rank_files(self, tmp_path: Path, name: str, saved: Topology, asked: Topology) -> None:
        relay = Relay(tmp_path, name)
        source = save(tmp_path / "ckpt", relay.config, relay.hf, saved, padded=True)
        relay.convert(source, **sizes(asked))
        assert load_legacy(tmp_path / "out" / "release", relay.config, relay.hf, asked) == []
        relay.same(source)

    @pytest.mark.parametrize(
        ("name", "saved"),
        [
            ("2.5", Topology(tp=2, pp=2, vpp=2)),
            ("moe", Topology(tp=2, ep=2, etp=1)),
            pytest.param("tied", Topology(tp=2, pp=2), marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_rank_files_to_torch_dist(self, tmp_path: Path, name: str, saved: Topology) -> None:
        relay = Relay(tmp_path, name)
        source = save_legacy(tmp_path / "ckpt", relay.config, relay.hf, saved, padded=True)
        report = relay.convert(source)
        assert (
            report.data["form"].startswith("TP 2"),
            report.data["target_format"],
            report.data["target_padding_rows"],
        ) == (True, "torch_dist", 0)
        assert load_and_compare(tmp_path / "out" / "release", relay.config, relay.hf, Topology(tp=4)) == []
        relay.same(source)

    def test_rank_files_of_another_topology(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        source = save_legacy(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=4))
        asked = Topology(tp=2, pp=3, first=1, last=2)
        relay.convert(source, **sizes(asked), as_iteration=30)
        assert (tmp_path / "out" / "latest_checkpointed_iteration.txt").read_text() == "30"
        assert load_legacy(tmp_path / "out" / "iter_0000030", relay.config, relay.hf, asked) == []
        relay.same(source)

    def test_keys_per_layer(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "moe")
        source = save(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2, ep=2), "singleton")
        relay.convert(source, per_layer=True)
        assert load_and_compare(tmp_path / "out" / "release", relay.config, relay.hf, Topology(pp=2), "per_layer") == []
        relay.same(source)

    def test_fully_sharded_to_rank_files(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        source = save_fsdp(tmp_path / "ckpt", relay.config, relay.hf, "module.")
        relay.convert(source, **sizes(Topology(tp=2)))
        assert load_legacy(tmp_path / "out" / "release", relay.config, relay.hf, Topology(tp=2)) == []
        relay.same(source)


class TestLayouts:
    @pytest.mark.parametrize(
        ("name", "theirs", "layout"),
        [
            ("dense", "mbridge", "pai"),
            ("moe", "mbridge", "megatron-bridge-0.3"),
            ("tied", "megatron-bridge-0.3", "mbridge"),
            ("2.5", "ms-swift", "mbridge-qwen2_5"),
            pytest.param("moe", "pai", "roll", marks=pytest.mark.slow),
            pytest.param("2.5", "hf-old", "megatron-bridge-qwen2_5", marks=pytest.mark.slow),
        ],
    )
    def test_torch_dist_under_other_names(self, tmp_path: Path, name: str, theirs: str, layout: str) -> None:
        relay = Relay(tmp_path, name)
        config = reference_config(relay.config)
        source = write(tmp_path / "ckpt", theirs, config, relay.hf)
        report = relay.convert(source, as_layout=layout)
        assert (report.data["layout"], report.data["target_layout"]) == (theirs, layout)
        found = {
            key: value
            for key, value in dcp.load(tmp_path / "out" / "release").items()
            if isinstance(value, torch.Tensor)
        }
        assert differing(found, saved_names(layout, config, relay.hf)) == []
        relay.same(source)

    def test_rank_files_of_mindspeed_mm_for_mbridge_and_back(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        grid = Grid([[1, 3]], [[2, 1]], tp=2, vision_tp=1)
        source = write_ranks(tmp_path / "ckpt", "mindspeed-mm", reference_config(relay.config), relay.hf, grid)
        relay.convert(source, as_layout="mbridge")
        assert load_and_compare(tmp_path / "out" / "release", relay.config, relay.hf, Topology(tp=2)) == []
        relay.same(source)
        mcore2mcore(
            tmp_path / "out",
            tmp_path / "again",
            Mcore2McoreOptions(as_layout="mindspeed-mm", **sizes(Topology(tp=2, pp=2))),
        )
        report = verify(source, tmp_path / "again", VerifyOptions(references=(str(relay.reference),)))
        assert (report.status, report.differences) == ("same", [])

    @pytest.mark.parametrize(
        ("theirs", "target_format", "layout"),
        [
            ("pai", "torch_dist", "pai"),
            ("pai", "torch", "pai"),
            ("roll", "torch_dist", "roll"),
        ],
    )
    def test_names_are_kept_where_their_trainer_reads_the_format(
        self, tmp_path: Path, theirs: str, target_format: Any, layout: str
    ) -> None:
        relay = Relay(tmp_path, "dense")
        source = write(tmp_path / "ckpt", theirs, reference_config(relay.config), relay.hf)
        report = mcore2mcore(
            source,
            tmp_path / "out",
            Mcore2McoreOptions(reference=str(relay.reference), format=target_format, dry_run=True),
        )
        assert (report.status, report.data["layout"], report.data["target_layout"]) == ("planned", theirs, layout)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("theirs", "target_format"), [("roll", "torch"), ("hf", "torch_dist")])
    def test_another_trainers_names_are_not_written_unasked(
        self, tmp_path: Path, theirs: str, target_format: Any
    ) -> None:
        relay = Relay(tmp_path, "dense")
        source = write(tmp_path / "ckpt", theirs, reference_config(relay.config), relay.hf)
        options = {"reference": relay.reference, "format": target_format, "dry_run": True}
        with pytest.raises(UnsupportedError, match=f"layout {theirs} .* is not written as {target_format}") as fault:
            mcore2mcore(source, tmp_path / "out", Mcore2McoreOptions(**options))
        assert "--as-layout mbridge or --as-layout " in fault.value.hint
        asked = mcore2mcore(source, tmp_path / "out", Mcore2McoreOptions(**options, as_layout="mbridge"))
        assert asked.data["target_layout"] == "mbridge"

    def test_a_format_that_the_layout_asked_for_has_not(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        with pytest.raises(UnsupportedError, match="layout mindspeed-mm"):
            relay.convert(
                write(tmp_path / "ckpt", "pai", reference_config(relay.config), relay.hf), as_layout="mindspeed-mm"
            )


class TestOptions:
    def test_which_iteration_and_layout(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        save(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2), iteration=10)
        save(tmp_path / "ckpt", relay.config, random_hf_tensors(relay.config, seed=5), Topology(tp=2), iteration=20)
        relay.convert(tmp_path / "ckpt", iteration=10, layout="mbridge", as_iteration=1)
        relay.same(tmp_path / "ckpt" / "iter_0000010")

    def test_files_beside_the_weights(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        relay.convert(save(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2)))
        beside, given = tmp_path / "out" / "huggingface", relay.reference
        assert {p.name for p in beside.iterdir()} == {p.name for p in given.iterdir()}
        assert json.loads((beside / "config.json").read_text()) == json.loads((given / "config.json").read_text()) | {
            "dtype": "bfloat16"
        }

    def test_padding_is_made_anew(self, tmp_path: Path) -> None:
        """What was noise becomes zeros, as many rows as asked for.

        Which verify counts as a difference, and as no other.
        """
        relay = Relay(tmp_path, "tied")
        source = save(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2), padded=True)
        report = relay.convert(source, make_vocab_size_divisible_by=100)
        rows = dcp.load(tmp_path / "out" / "release")["language_model.embedding.word_embeddings.weight"]
        assert (rows.shape[0], report.data["padding_rows"], report.data["target_padding_rows"]) == (300, 8, 52)
        assert not rows[248:].any()
        options = VerifyOptions(references=(str(relay.reference),), make_vocab_size_divisible_by=100)
        (found,) = verify(source, tmp_path / "out", options).differences
        assert (found.tensor, found.count, found.first) == (
            "language_model.embedding.word_embeddings.weight",
            8 * 64,
            (248, 0),
        )

    def test_cast(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        relay.convert(save(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2)), dtype="float32")
        relay.hf = {name: t.float() for name, t in relay.hf.items()}
        assert load_and_compare(tmp_path / "out" / "release", relay.config, relay.hf, Topology(tp=2)) == []

    def test_strict_refuses_ranks_that_disagree(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "dense")
        source = save_legacy(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2))
        file = source / "mp_rank_01" / "model_optim_rng.pt"
        state = torch.load(file, weights_only=False)
        state["model"]["vision_model.patch_embed.proj.bias"][0] += 1
        torch.save(state, file)
        with pytest.raises(MismatchError, match=r"ranks disagree:\n  vision_model\.patch_embed\.proj\.bias"):
            relay.convert(source, strict=True)
        assert not (tmp_path / "out").exists()
        assert len(relay.convert(source).warnings) == 1

    def test_the_source_is_left_as_it_is(self, tmp_path: Path) -> None:
        relay = Relay(tmp_path, "tied")
        source = save_legacy(tmp_path / "ckpt", relay.config, relay.hf, Topology(tp=2, pp=2))
        before = {p: p.read_bytes() for p in source.rglob("*.pt")}
        relay.convert(source)
        assert {p: p.read_bytes() for p in source.rglob("*.pt")} == before


def every_form(work: Path, config: ModelConfig, hf: Tensors) -> dict[str, Path]:
    """One model as megatron-core, other trainers and vlconv write it."""
    moe = bool(config.text.experts)
    ranks = (
        [Topology(tp=2, ep=2, etp=1), Topology(tp=2, pp=2, ep=2)]
        if moe
        else [Topology(tp=2), Topology(tp=2, pp=2, vpp=2), Topology(pp=3, first=1, last=2)]
    )
    return by_megatron_core(work, config, hf, ranks) | by_trainers(work, config, hf) | by_vlconv(work, ranks)


def by_megatron_core(work: Path, config: ModelConfig, hf: Tensors, ranks: list[Topology]) -> dict[str, Path]:
    forms: list[Form] = ["stacked", "per_layer", "singleton"]
    found = {
        form: save(work / form, config, hf, Topology(tp=2, pp=2), form, padded=form == "stacked") for form in forms
    }
    return found | {
        f"torch {topology}": save_legacy(work / f"torch-{topology}", config, hf, topology, padded=topology.pp > 1)
        for topology in ranks
    }


def by_trainers(work: Path, config: ModelConfig, hf: Tensors) -> dict[str, Path]:
    made, moe = reference_config(config), bool(config.text.experts)
    found = {"fsdp_dtensor": save_fsdp(work / "fsdp", config, hf, "module."), "plain": save_plain(work / "plain", hf)}
    found |= {name: write(work / name, name, made, hf) for name in ("megatron-bridge-0.3", "ms-swift", "pai", "roll")}
    grid = Grid([[2, 2]], tp=2, ep=2) if moe else Grid([[1, 3]], [[2, 1]], tp=2, vision_tp=1)
    names = ("pai", "roll", "mindspeed-mm") if moe else ("mindspeed-mm",)
    return found | {f"{name} torch": write_ranks(work / f"{name}-ranks", name, made, hf, grid) for name in names}


def by_vlconv(work: Path, ranks: list[Topology]) -> dict[str, Path]:
    asked: dict[str, dict[str, Any]] = {"ours": {}, "ours per layer": {"per_layer": True}} | {
        f"ours torch {topology}": sizes(topology) for topology in ranks
    }
    for name, options in asked.items():
        hf2mcore(work / "hf", work / name, Hf2McoreOptions(**options))
    return {name: work / name for name in asked}


@pytest.mark.parametrize("name", ["dense", pytest.param("moe", marks=pytest.mark.slow)])
def test_one_model_in_every_format_and_topology(tmp_path: Path, name: str) -> None:
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    original = write_hf(tmp_path / "hf", config, hf)
    forms = every_form(tmp_path, config, hf)
    assert len(forms) == 18
    found = {form: verify(path, original) for form, path in forms.items()}
    assert {form: (report.status, report.differences) for form, report in found.items()} == {
        form: ("same", []) for form in forms
    }
    elements = sum(t.numel() for t in hf.values())
    assert {report.data["elements"] for report in found.values()} == {elements}
    # One bit, and it is seen: the same forms do not pass whatever they are held against.
    hf["model.visual.merger.norm.bias"].view(torch.int16)[0] ^= 1
    other = write_hf(tmp_path / "other", config, hf)
    assert {verify(path, other).status for path in list(forms.values())[::5]} == {"different"}
