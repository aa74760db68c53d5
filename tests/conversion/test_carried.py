"""What a checkpoint does not hold: the vision tower of a model whose language half was trained and saved alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from halves import bare, half
from killing import killed
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_hf, write_reference
from refusing import refused
from tiny import write_weights

from vlconv.converters import (
    Mcore2HfOptions,
    Mcore2McoreOptions,
    Report,
    Silent,
    VerifyOptions,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.errors import (
    ChangedError,
    CorruptError,
    MismatchError,
    NotComparable,
    ReferenceFault,
    UnsupportedError,
)

SAMPLED = 2

Tensors = dict[str, torch.Tensor]

TOWER = "model.visual."
TALKER = {"talker.head.weight": torch.arange(6.0).reshape(2, 3), "talker.table": torch.arange(5)}


@pytest.fixture(autouse=True)
def layout(monkeypatch: pytest.MonkeyPatch) -> None:
    bare(monkeypatch)


def trained() -> Tensors:
    return random_hf_tensors(tiny())


def released() -> Tensors:
    """The reference's: other numbers everywhere."""
    return random_hf_tensors(tiny(), seed=7)


def united(dtype: torch.dtype | None = None) -> Tensors:
    tensors = {n: (released() if n.startswith(TOWER) else trained())[n] for n in trained()}
    return {n: t.to(dtype) for n, t in tensors.items()} if dtype else tensors


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`half` without a tower, `whole` with one, `huggingface` without weights, `reference` with some. To be read."""
    root = tmp_path_factory.mktemp("made")
    write_reference(root / "huggingface", tiny())
    save(root / "whole", tiny(), trained(), Topology(tp=2))
    half(save(root / "half", tiny(), trained(), Topology(tp=2)))
    write_hf(root / "reference", tiny(), released() | TALKER, shards=4)
    return root


def carrying(made: Path, *prefixes: str, **options: Any) -> Mcore2HfOptions:
    return Mcore2HfOptions(reference=made / "reference", carry=prefixes or (TOWER,), **options)


class TestToHuggingFace:
    def test_the_tower_is_the_references_byte_for_byte(self, made: Path, tmp_path: Path) -> None:
        report = mcore2hf(made / "half", tmp_path / "hf", carrying(made))
        assert differing(read_hf(tmp_path / "hf"), united()) == []
        count = sum(name.startswith(TOWER) for name in united())
        assert (
            f"{count} {TOWER}* from {made / 'reference'} (given as --reference), byte for byte"
            in report.told["carried"]
        )
        assert "not trained with it" in report.told["carried"]
        told = report.data["carried"]
        assert (told["tensors"], told["untrained"], told["prefixes"]) == (count, True, {TOWER: count})
        assert told["bytes"] == sum(t.nbytes for n, t in united().items() if n.startswith(TOWER))
        assert report.data["tensors"] == len(united())
        manifest = json.loads((tmp_path / "hf/vlconv.json").read_text())
        assert manifest["decisions"]["carried"] == report.told["carried"]
        assert manifest["changes"]["carried"] == told
        files = {p.name: p.stat().st_size for p in (made / "reference").glob("*.safetensors")}
        assert told["files"].items() <= files.items() and told["files"]

    def test_another_dtype_is_for_all(self, made: Path, tmp_path: Path) -> None:
        mcore2hf(made / "half", tmp_path / "hf", carrying(made, dtype="float32"))
        assert differing(read_hf(tmp_path / "hf"), united(torch.float32)) == []

    def test_what_no_model_lists_goes_along_as_it_is(self, made: Path, tmp_path: Path) -> None:
        report = mcore2hf(made / "half", tmp_path / "hf", carrying(made, TOWER, "talker.", dtype="float32"))
        assert differing(read_hf(tmp_path / "hf"), united(torch.float32) | TALKER) == []
        assert report.data["carried"]["prefixes"]["talker."] == 2
        mcore2hf(made / "whole", tmp_path / "other", carrying(made, "talker."))
        assert differing(read_hf(tmp_path / "other"), trained() | TALKER) == []

    def test_several_prefixes_may_make_a_whole(self, made: Path, tmp_path: Path) -> None:
        parts = [f"{TOWER}{part}" for part in ("patch", "pos", "blocks", "merger", "deepstack")]
        mcore2hf(made / "half", tmp_path / "hf", carrying(made, *parts))
        assert differing(read_hf(tmp_path / "hf"), united()) == []

    def test_only_files_that_hold_it_are_opened(self, made: Path, tmp_path: Path) -> None:
        """The rest of the reference's weights need not be here."""
        shutil.copytree(made / "reference", tmp_path / "reference")
        index = json.loads((made / "reference/model.safetensors.index.json").read_text())["weight_map"]
        needed = {file for name, file in index.items() if name.startswith(TOWER)}
        others = set(index.values()) - needed
        assert others
        for file in others:
            (tmp_path / "reference" / file).unlink()
        mcore2hf(made / "half", tmp_path / "hf", carrying(tmp_path))
        assert differing(read_hf(tmp_path / "hf"), united()) == []
        (tmp_path / "reference" / sorted(needed)[0]).unlink()
        with pytest.raises(Exception, match=r"missing, though model\.safetensors\.index\.json names it"):
            mcore2hf(made / "half", tmp_path / "out", carrying(tmp_path))


class TestRefused:
    def refuse(self, made: Path, tmp_path: Path, kind: Any, says: str, source: str = "half", **options: Any) -> Any:
        asked = Mcore2HfOptions(**{"reference": made / "reference", **options})
        return refused(mcore2hf, made / source, tmp_path / "out", asked, fault=kind, says=says)

    def test_half_a_model_unless_the_rest_is_carried(self, made: Path, tmp_path: Path) -> None:
        says = "holds the language model of a qwen3_vl alone, without its vision tower"
        for options in ({}, {"reference": None}, {"carry": ("talker.",)}):
            assert "--carry model.visual." in self.refuse(made, tmp_path, MismatchError, says, **options).hint

    @pytest.mark.parametrize(
        ("prefix", "kind", "says"),
        [
            (TOWER + "blocks.1.", MismatchError, "of the vision tower's"),
            ("model.", MismatchError, "takes parts of the language model"),
            ("lm_", MismatchError, "takes parts of the language model"),
            ("nothing.", ReferenceFault, "no tensor whose name begins with 'nothing.'"),
        ],
    )
    def test_what_does_not_go_alone(self, made: Path, tmp_path: Path, prefix: str, kind: Any, says: str) -> None:
        self.refuse(made, tmp_path, kind, says, carry=(prefix,))

    def test_what_the_checkpoint_holds_itself(self, made: Path, tmp_path: Path) -> None:
        self.refuse(made, tmp_path, MismatchError, "holds a vision tower itself", "whole", carry=(TOWER,))

    def test_a_reference_without_weights(self, made: Path, tmp_path: Path) -> None:
        for reference in (None, made / "huggingface"):
            says = "has no safetensors weights to carry tensors from"
            self.refuse(made, tmp_path, ReferenceFault, says, reference=reference, carry=(TOWER,))

    def test_a_reference_that_lacks_some_of_it(self, made: Path, tmp_path: Path) -> None:
        short = {n: t for n, t in released().items() if not n.startswith(f"{TOWER}merger.norm")}
        reference = write_hf(tmp_path / "short", tiny(), short)
        self.refuse(
            made, tmp_path, ReferenceFault, "lack model.visual.merger.norm", reference=reference, carry=(TOWER,)
        )

    def test_a_reference_of_another_size(self, made: Path, tmp_path: Path) -> None:
        wrong = released() | {f"{TOWER}merger.norm.bias": torch.zeros(33, dtype=torch.bfloat16)}
        reference = write_hf(tmp_path / "wrong", tiny(), wrong)
        self.refuse(made, tmp_path, MismatchError, "merger.norm.bias is [33]", reference=reference, carry=(TOWER,))

    def test_a_head_under_another_flag(self, made: Path, tmp_path: Path) -> None:
        reference = write_hf(tmp_path / "head", tiny(), released() | {"mtp.fc.weight": torch.ones(3)})
        error = self.refuse(
            made, tmp_path, MismatchError, "multi-token-prediction", reference=reference, carry=(TOWER, "mtp.")
        )
        assert "--mtp carry" in error.hint

    @pytest.mark.parametrize("file", ["../reference/a.safetensors", "/etc/passwd", "config.json", ""])
    def test_an_index_that_leads_elsewhere(self, made: Path, tmp_path: Path, file: str) -> None:
        shutil.copytree(made / "reference", tmp_path / "reference")
        path = tmp_path / "reference/model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"][f"{TOWER}pos_embed.weight"] = file
        path.write_text(json.dumps(index))
        says = "names a file that is no safetensors file beside it"
        self.refuse(tmp_path, tmp_path, CorruptError, says, str(made / "half"), carry=(TOWER,))

    def test_a_target_among_the_sources(self, made: Path, tmp_path: Path) -> None:
        """Weights that are links, as in the Hub's cache, lie in another folder."""
        shutil.copytree(made / "reference", tmp_path / "reference")
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        for path in (tmp_path / "reference").glob("*.safetensors"):
            path.rename(blobs / path.name)
            path.symlink_to(blobs / path.name)
        with pytest.raises(Exception, match="lies inside the reference"):
            mcore2hf(made / "half", blobs / "out", carrying(tmp_path))


class TestRuns:
    def test_a_killed_run_is_gone_on_with_unless_the_reference_changed(self, made: Path, tmp_path: Path) -> None:
        shutil.copytree(made / "reference", tmp_path / "reference")
        options = carrying(tmp_path, max_shard_size=60_000)

        def run() -> Report:
            return mcore2hf(made / "half", tmp_path / "hf", options)

        killed(run, after=3)
        report = run()
        assert report.data["resumes"]["files"] == 3
        assert differing(read_hf(tmp_path / "hf"), united()) == []
        shutil.rmtree(tmp_path / "hf")
        killed(run, after=3)
        other = random_hf_tensors(tiny(), seed=8)
        write_weights(tmp_path / "reference", other, shards=4)
        report = run()
        assert report.data.get("resumes", {}).get("files", 0) == 0
        found = read_hf(tmp_path / "hf")
        assert differing(found, {n: (other if n.startswith(TOWER) else trained())[n] for n in found}) == []

    def test_a_reference_that_changes_meanwhile(self, made: Path, tmp_path: Path) -> None:
        shutil.copytree(made / "reference", tmp_path / "reference")
        index = json.loads((made / "reference/model.safetensors.index.json").read_text())["weight_map"]
        path = tmp_path / "reference" / index[f"{TOWER}pos_embed.weight"]

        class Meddler(Silent):
            def planned(self, report: Report) -> None:
                found = path.stat()
                os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))

        with pytest.raises(ChangedError, match=path.name):
            mcore2hf(made / "half", tmp_path / "hf", carrying(tmp_path), Meddler())
        assert not (tmp_path / "hf").exists()


class TestToMegatronAndVerify:
    def test_another_trainers_names_for_all_of_it(self, made: Path, tmp_path: Path) -> None:
        asked = {"reference": made / "reference", "carry": (TOWER,)}
        for form in ({}, {"format": "torch", "tensor_model_parallel_size": 2}):
            target = tmp_path / f"mcore{len(form)}"
            report = mcore2mcore(made / "half", target, Mcore2McoreOptions(as_layout="mbridge", **asked, **form))
            assert "not trained with it" in report.told["carried"]
            mcore2hf(target, tmp_path / f"hf{len(form)}")
            assert differing(read_hf(tmp_path / f"hf{len(form)}"), united()) == []
        options = VerifyOptions(references=(made / "reference",), carry=(TOWER,))
        assert verify(made / "half", tmp_path / "mcore0", options).status == "same"

    def test_its_own_names_have_no_place_for_it(self, made: Path, tmp_path: Path) -> None:
        asked = Mcore2McoreOptions(reference=made / "reference", carry=(TOWER,))
        with pytest.raises(UnsupportedError, match="in layout half") as fault:
            mcore2mcore(made / "half", tmp_path / "out", asked)
        assert "--as-layout mbridge" in fault.value.hint
        both = Mcore2McoreOptions(reference=made / "reference", carry=(TOWER, "talker."), as_layout="mbridge")
        with pytest.raises(UnsupportedError, match="2 tensors that no layout has a name for"):
            mcore2mcore(made / "half", tmp_path / "out", both)

    def test_a_pair_is_compared_with_the_same_union(self, made: Path, tmp_path: Path) -> None:
        options = VerifyOptions(references=(made / "reference",), carry=(TOWER,))
        right = write_hf(tmp_path / "right", tiny(), united())
        for pair in ((made / "half", right), (right, made / "half")):
            report = verify(*pair, options)
            assert (report.status, report.data["tensors"]) == ("same", len(united()))
            assert "not trained with it" in report.told["a_carried" if pair[1] == right else "b_carried"]
        for name in (f"{TOWER}pos_embed.weight", "model.language_model.norm.weight"):
            wrong = united()
            wrong[name].view(torch.int16).view(-1)[3] ^= 1
            report = verify(made / "half", write_hf(tmp_path / name, tiny(), wrong), options)
            assert [(d.tensor, d.count) for d in report.differences] == [(name, 1)]
        with pytest.raises(NotComparable, match="without its vision tower"):
            verify(made / "half", right)

    def test_a_directory_with_more_than_the_model_lists(self, made: Path, tmp_path: Path) -> None:
        carry = (TOWER, "talker.")
        mcore2hf(made / "half", tmp_path / "hf", carrying(made, *carry))
        options = VerifyOptions(references=(made / "reference",), carry=carry)
        report = verify(made / "half", tmp_path / "hf", options)
        assert (report.status, report.data["tensors"]) == ("same", len(united()) + 2)
        with pytest.raises(NotComparable, match=r"talker\.table has dtype int64"):
            verify(made / "whole", tmp_path / "hf")

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_a_round_trip(self, made: Path, tmp_path: Path, on_disk: bool) -> None:
        options = VerifyOptions(references=(made / "reference",), carry=(TOWER,), on_disk=tmp_path if on_disk else None)
        report = verify(made / "half", None, options)
        assert (report.status, report.differences) == ("same", [])
        whole = sum(t.numel() for t in united().values())
        assert (report.data["elements"] == whole) is on_disk


class TestFromTheHub:
    """No network: huggingface_hub's functions are ours."""

    @pytest.fixture
    def hub(self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The files that are fetched, in order; config and side files are in the cache at first."""
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        snapshot = tmp_path / "hub/models--Some--Model/snapshots/0123abc"
        fetched: list[str] = []
        reach = {"on": True}

        class Api:
            def model_info(self, *_: Any, **__: Any) -> Any:
                raise ConnectionError("no network")

        def hf_hub_download(hub_id: str, name: str, *, revision: str) -> str:
            assert (hub_id, revision) == ("Some/Model", "0123abc")
            if not reach["on"]:
                raise LocalEntryNotFoundError("Cannot find \x1b[1mthe file")
            if not (made / "reference" / name).exists():
                raise EntryNotFoundError(name)
            fetched.append(name)
            shutil.copy(made / "reference" / name, snapshot / name)
            return str(snapshot / name)

        write_reference(snapshot, tiny())
        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
        self.reach = reach
        return fetched

    def test_only_the_files_that_hold_it_are_fetched(self, made: Path, tmp_path: Path, hub: list[str]) -> None:
        options = Mcore2HfOptions(reference="Some/Model", carry=(TOWER,))
        report = mcore2hf(made / "half", tmp_path / "hf", options)
        index = json.loads((made / "reference/model.safetensors.index.json").read_text())["weight_map"]
        needed = sorted({file for name, file in index.items() if name.startswith(TOWER)})
        assert hub == ["model.safetensors.index.json", *needed] and len(needed) < 4
        assert differing(read_hf(tmp_path / "hf"), united()) == []
        assert "hub id Some/Model" in report.told["carried"]
        mcore2hf(made / "half", tmp_path / "again", options)
        assert len(hub) == 1 + len(needed)  # they are here now

    def test_out_of_reach(self, made: Path, tmp_path: Path, hub: list[str]) -> None:
        self.reach["on"] = False
        with pytest.raises(ReferenceFault, match="not in the local cache, and the Hub cannot be reached") as fault:
            mcore2hf(made / "half", tmp_path / "hf", Mcore2HfOptions(reference="Some/Model", carry=(TOWER,)))
        assert "\x1b" not in str(fault.value) and hub == []

    def test_nothing_is_fetched_unless_it_is_asked_for(self, made: Path, tmp_path: Path, hub: list[str]) -> None:
        mcore2hf(made / "whole", tmp_path / "hf", Mcore2HfOptions(reference="Some/Model"))
        assert hub == []
