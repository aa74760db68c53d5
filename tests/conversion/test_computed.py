"""Tensors that a layout holds minus one: what torch adds and subtracts is what is written, told and compared.

No layout here has such a tensor yet, so one gets some: Qwen3-VL's last norm and the norms of its queries.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dcp
import pytest
import torch
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_hf, write_reference

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    VerifyOptions,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS

Tensors = dict[str, torch.Tensor]

NORM = "model.language_model.norm.weight"
QUERY = "model.language_model.layers.{}.self_attn.q_norm.weight"
COMPUTED = [NORM, *(QUERY.format(i) for i in range(4))]
MCORE_NORM = "language_model.decoder.final_layernorm.weight"
MCORE_QUERY = "language_model.decoder.layers.{}.self_attention.q_layernorm.weight"
ELEMENTS = 64 + 4 * 16


@pytest.fixture(autouse=True)
def less_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """mbridge's names hold five norms minus one, and releases may hold the last one in float32."""

    def names(config: Any) -> Any:
        yield MCORE_NORM
        yield from (MCORE_QUERY.format(i) for i in range(config.text.layers))

    monkeypatch.setitem(LAYOUTS, "mbridge", replace(LAYOUTS["mbridge"], less_one=names))
    wide = replace(MODELS["qwen3_vl"], kept_wide=lambda config: ("norm.weight",))
    monkeypatch.setitem(MODELS, "qwen3_vl", wide)


def trained() -> Tensors:
    """What the checkpoint holds, under Hugging Face names: norms scatter about zero."""
    hf = random_hf_tensors(tiny())
    generator = torch.Generator().manual_seed(1)
    for name in COMPUTED:
        hf[name] = (0.1 * torch.randn(hf[name].shape, generator=generator)).bfloat16()
    return hf


def plus_one(hf: Tensors, dtype: torch.dtype = torch.bfloat16) -> Tensors:
    return hf | {name: (hf[name].float() + 1).to(dtype) for name in COMPUTED}


def rounded(before: Tensors, after: Tensors, amount: float = 1.0) -> int:
    """The elements from which the source's cannot be told again."""
    return sum(int((after[n].double() - amount != before[n].double()).sum()) for n in COMPUTED)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mcore`, which megatron-core wrote, and `huggingface` beside it, without weights. To be read only."""
    root = tmp_path_factory.mktemp("trained")
    write_reference(root / "huggingface", tiny())
    save(root / "mcore", tiny(), trained(), Topology(tp=2))
    return root / "mcore"


class TestToHuggingFace:
    def test_one_is_added(self, checkpoint: Path, tmp_path: Path) -> None:
        report = mcore2hf(checkpoint, tmp_path / "hf")
        expected = plus_one(trained())
        assert differing(read_hf(tmp_path / "hf"), expected) == []
        assert report.told["computed"].startswith(f"5 tensors are the source's plus one ({MCORE_QUERY.format(0)}, ")
        count = rounded(trained(), expected)
        assert 50 < count < ELEMENTS
        assert report.told["rounded"].startswith(f"{count} of {ELEMENTS} elements in 5 computed tensors were rounded")
        assert (report.data["rounded"]["rounded"], report.data["rounded"]["elements"]) == (count, ELEMENTS)
        manifest = json.loads((tmp_path / "hf/vlconv.json").read_text())
        assert manifest["decisions"]["computed"] == report.told["computed"]
        assert manifest["changes"]["rounded"]["rounded"] == count
        assert sorted(manifest["changes"]["computed"][0]["tensors"]) == sorted(
            [MCORE_NORM, *(MCORE_QUERY.format(i) for i in range(4))]
        )

    def test_a_dry_run_says_what_would_be_computed(self, checkpoint: Path, tmp_path: Path) -> None:
        report = mcore2hf(checkpoint, tmp_path / "hf", Mcore2HfOptions(dry_run=True))
        assert "computed" in report.told and "rounded" not in report.told

    def test_another_dtype_is_rounded_to_once(self, checkpoint: Path, tmp_path: Path) -> None:
        report = mcore2hf(checkpoint, tmp_path / "hf", Mcore2HfOptions(dtype="float32"))
        expected = {name: tensor.float() for name, tensor in plus_one(trained(), torch.float32).items()}
        assert differing(read_hf(tmp_path / "hf"), expected) == []
        assert report.data["rounded"]["rounded"] == rounded(trained(), expected) < 10


class TestToMegatron:
    def test_one_is_subtracted(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        report = hf2mcore(write_hf(tmp_path / "hf", tiny(), hf), tmp_path / "mcore")
        found = dcp.unstacked(dcp.load(tmp_path / "mcore/release"))
        assert torch.equal(found[MCORE_NORM], (hf[NORM].float() - 1).bfloat16())
        for layer in range(4):
            assert torch.equal(found[MCORE_QUERY.format(layer)], (hf[QUERY.format(layer)].float() - 1).bfloat16())
        minus = {name: (hf[name].float() - 1).bfloat16() for name in COMPUTED}
        assert report.data["rounded"]["rounded"] == rounded(hf, minus, -1.0) > 0
        assert "minus one" in report.told["computed"]

    def test_another_dtype_is_rounded_to_once(self, tmp_path: Path) -> None:
        """Not to bfloat16 first, and then again."""
        hf = {name: tensor.float() for name, tensor in random_hf_tensors(tiny()).items()}
        hf[NORM] = 1 + torch.arange(64) * 2**-10
        source = write_hf(tmp_path / "hf", tiny(), hf)
        hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(dtype="bfloat16"))
        found = dcp.load(tmp_path / "mcore/release")[MCORE_NORM]
        assert torch.equal(found, (hf[NORM] - 1).bfloat16())
        assert not torch.equal(found, (hf[NORM].bfloat16().float() - 1).bfloat16())

    def test_float32_stays_and_is_told(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(), float32=[NORM])
        report = hf2mcore(write_hf(tmp_path / "hf", tiny(), hf), tmp_path / "mcore")
        found = dcp.load(tmp_path / "mcore/release")[MCORE_NORM]
        assert torch.equal(found, hf[NORM] - 1) and found.dtype == torch.float32
        assert "Megatron holds them in its parameters' dtype" in report.told["held_as"]
        assert report.data["float32_tensors"] == [NORM]


class TestToMegatronAgain:
    def test_the_same_names_hold_the_same_bits(self, checkpoint: Path, tmp_path: Path) -> None:
        report = mcore2mcore(checkpoint, tmp_path / "mcore")
        before, after = (dcp.unstacked(dcp.load(d)) for d in (checkpoint, tmp_path / "mcore/release"))
        for name in (MCORE_NORM, MCORE_QUERY.format(3)):
            assert torch.equal(before[name], after[name])
        assert "computed" not in report.told and "rounded" not in report.told

    def test_other_names_may_hold_the_value_itself(self, checkpoint: Path, tmp_path: Path) -> None:
        report = mcore2mcore(checkpoint, tmp_path / "mcore", Mcore2McoreOptions(as_layout="pai"))
        found = dcp.unstacked(dcp.load(tmp_path / "mcore/release"))
        assert torch.equal(found[MCORE_NORM], plus_one(trained())[NORM])
        assert report.data["rounded"]["elements"] == ELEMENTS
        assert verify(checkpoint, tmp_path / "mcore").told["by_rule"].startswith("5 tensors are equal by rule")


class TestDtypesOfTheReference:
    def test_its_weights_say_which(self, checkpoint: Path, tmp_path: Path) -> None:
        reference = write_hf(tmp_path / "reference", tiny(), random_hf_tensors(tiny(), float32=[NORM]))
        report = mcore2hf(checkpoint, tmp_path / "hf", Mcore2HfOptions(reference=reference))
        expected = plus_one(trained()) | {NORM: trained()[NORM].float() + 1}
        assert differing(read_hf(tmp_path / "hf"), expected) == []
        assert report.told["reference_dtypes"] == (
            f"as the reference's weights have them: 1 bfloat16 to float32 ({NORM})"
        )
        assert report.data["rounded"]["rounded"] == rounded(trained(), expected)
        for pair in ((checkpoint, tmp_path / "hf"), (tmp_path / "hf", checkpoint)):
            assert verify(*pair).status == "same"

    def test_narrowing_is_counted(self, tmp_path: Path) -> None:
        """A checkpoint in float32 whose reference holds the tensor in bfloat16."""
        hf = random_hf_tensors(tiny(), float32=[NORM])
        hf2mcore(write_hf(tmp_path / "hf", tiny(), hf), tmp_path / "mcore")
        reference = write_hf(tmp_path / "reference", tiny(), random_hf_tensors(tiny()))
        report = mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(reference=reference))
        assert torch.equal(read_hf(tmp_path / "back")[NORM], ((hf[NORM] - 1) + 1).bfloat16())
        assert report.data["rounded"]["tensors"][MCORE_NORM] > 50
        assert "1 float32 to bfloat16" in report.told["reference_dtypes"]

    @pytest.mark.parametrize("within_reach", [True, False])
    def test_of_a_hub_id(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within_reach: bool
    ) -> None:
        """From the headers alone; without a network they are the checkpoint's, and that is told."""
        import huggingface_hub

        snapshot = write_reference(tmp_path / "hub/models--Some--Model/snapshots/0123abc", tiny())

        class Api:
            def model_info(self, *_: Any, **__: Any) -> Any:
                raise ConnectionError("no network")

            def get_safetensors_metadata(self, hub_id: str, *, revision: str) -> Any:
                assert (hub_id, revision) == ("Some/Model", "0123abc")
                if not within_reach:
                    raise ConnectionError("no \x1b[1mnetwork")
                files = {"1.safetensors": SimpleNamespace(tensors={NORM: SimpleNamespace(dtype="F32")})}
                return SimpleNamespace(weight_map={NORM: "1.safetensors"}, files_metadata=files)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
        report = mcore2hf(checkpoint, tmp_path / "hf", Mcore2HfOptions(reference="Some/Model"))
        found = read_hf(tmp_path / "hf")[NORM]
        assert found.dtype == (torch.float32 if within_reach else torch.bfloat16)
        warned = [w for w in report.warnings if "dtypes are the checkpoint's" in w]
        assert len(warned) == (not within_reach) and "\x1b" not in "".join(warned)


class TestVerify:
    def test_either_way_round_is_the_rule(self, checkpoint: Path, tmp_path: Path) -> None:
        """What was made of the checkpoint, and what the checkpoint was made of."""
        mcore2hf(checkpoint, tmp_path / "hf")
        report = verify(checkpoint, tmp_path / "hf")
        assert (report.status, report.differences) == ("same", [])
        assert sorted(report.data["by_rule"]) == sorted(COMPUTED)
        assert report.data["rounded"]["rounded"] == rounded(trained(), plus_one(trained()))
        hf = random_hf_tensors(tiny())
        hf[NORM] = torch.linspace(0.25, 0.5, 64).bfloat16()
        hf2mcore(write_hf(tmp_path / "source", tiny(), hf), tmp_path / "mcore")
        there = (hf[NORM].float() - 1).bfloat16()
        assert not torch.equal((there.float() + 1).bfloat16(), hf[NORM])  # the other way it is not to be had again
        for pair in ((tmp_path / "mcore", tmp_path / "source"), (tmp_path / "source", tmp_path / "mcore")):
            report = verify(*pair)
            assert (report.status, report.differences) == ("same", [])
            assert NORM in report.data["by_rule"]

    def test_another_number_is_none_of_the_rule(self, checkpoint: Path, tmp_path: Path) -> None:
        wrong = plus_one(trained())
        wrong[NORM][7] += 2**-7
        report = verify(checkpoint, write_hf(tmp_path / "hf", tiny(), wrong))
        assert [(d.tensor, d.count, d.first) for d in report.differences] == [(NORM, 1, (7,))]
        assert report.status == "different" and NORM not in report.data["by_rule"]
        assert len(report.data["by_rule"]) == 4

    def test_two_checkpoints_are_compared_as_they_are(self, tmp_path: Path) -> None:
        """0.001 and 0.0011 are both 1 once one is added, and still not the same."""
        pair = []
        for name, value in (("a", 0.001), ("b", 0.0011)):
            hf = trained() | {NORM: torch.full((64,), value).bfloat16()}
            write_reference(tmp_path / name / "huggingface", tiny())
            pair.append(save(tmp_path / name / "mcore", tiny(), hf, Topology()))
        report = verify(*pair)
        assert [(d.tensor, d.count) for d in report.differences] == [(NORM, 64)]

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_a_round_trip_of_a_checkpoint(self, checkpoint: Path, tmp_path: Path, on_disk: bool) -> None:
        report = verify(checkpoint, None, VerifyOptions(on_disk=tmp_path if on_disk else None))
        assert (report.status, report.differences) == ("same", [])
        there = plus_one(trained())
        changed = sum(int(((there[n].float() - 1).bfloat16() != trained()[n]).sum()) for n in COMPUTED)
        assert (report.data["rounded"]["elements"], report.data["rounded"]["rounded"]) == (ELEMENTS, changed)
        assert changed > 50

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_a_round_trip_of_a_hugging_face_directory(self, tmp_path: Path, on_disk: bool) -> None:
        hf = random_hf_tensors(tiny())
        source = write_hf(tmp_path / "hf", tiny(), hf)
        report = verify(source, None, VerifyOptions(on_disk=tmp_path if on_disk else None))
        assert (report.status, report.differences) == ("same", [])
        there = {name: (hf[name].float() - 1).bfloat16() for name in COMPUTED}
        changed = sum(int(((there[n].float() + 1).bfloat16() != hf[n]).sum()) for n in COMPUTED)
        assert report.data["rounded"]["rounded"] == changed > 0
