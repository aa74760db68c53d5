"""hf2mcore: megatron-core loads what it writes in its strictest mode, torch's reader agrees, and every file says what a
loader expects.

Expected values come from tests/mcore/formulas.py, which slices Hugging Face tensors and knows nothing of vlconv's
tables.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from mcore.fill import whole
from mcore.load import load_and_compare
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import differing, read_hf, write_hf
from torch.distributed import checkpoint
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from vlconv.converters import Hf2McoreOptions, Report, hf2mcore, mcore2hf
from vlconv.converters.errors import MismatchError
from vlconv.converters.formats.dcp import write as torch_dist_write
from vlconv.converters.models.shared.config import ModelConfig

pytestmark = pytest.mark.mcore_versions

Tensors = dict[str, torch.Tensor]

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
    "2.5 tied": tiny_2_5(tied=True),
}


def written(tmp_path: Path, config: ModelConfig, hf: Tensors, **options: Any) -> Report:
    """Write a Hugging Face directory and convert it; the checkpoint is tmp_path/mcore."""
    report = hf2mcore(write_hf(tmp_path / "hf", config, hf), tmp_path / "mcore", Hf2McoreOptions(**options))
    assert report.status == "done"
    return report


class TestLoadedByMegatronCore:
    """With raise_all:
    every key in the files is asked for, every key asked for is there, and every local parameter holds the formula's
    bits.
    """

    @pytest.mark.parametrize(
        ("name", "topology", "grouped"),
        [
            ("dense", Topology(tp=2, pp=2), True),
            ("dense", Topology(tp=4), True),
            ("dense", Topology(tp=2, pp=2, vpp=2), True),
            ("tied", Topology(tp=2, pp=2, first=1), True),
            ("tied", Topology(tp=4), True),
            ("moe", Topology(tp=2, ep=2), True),
            ("moe", Topology(tp=2, ep=2), False),
            ("moe", Topology(tp=2, pp=2, ep=2, etp=1), True),
            ("mixed", Topology(tp=2, pp=2), False),
            ("2.5", Topology(tp=2, pp=2), True),
            ("2.5 tied", Topology(tp=4), True),
        ],
        ids=str,
    )
    def test_at_any_topology(self, tmp_path: Path, name: str, topology: Topology, grouped: bool) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        written(tmp_path, CONFIGS[name], hf)
        assert load_and_compare(tmp_path / "mcore" / "release", CONFIGS[name], hf, topology, grouped=grouped) == []

    @pytest.mark.parametrize(
        ("divisor", "topology", "padded"),
        [
            (256, Topology(tp=2, pp=2), True),
            (512, Topology(tp=4), True),
            (256, Topology(tp=4), True),  # 256 rows into a model of 512
            (256, Topology(), False),  # and into one of 248
        ],
        ids=str,
    )
    def test_padded(self, tmp_path: Path, divisor: int, topology: Topology, padded: bool) -> None:
        hf = random_hf_tensors(CONFIGS["dense"])
        written(tmp_path, CONFIGS["dense"], hf, make_vocab_size_divisible_by=divisor)
        assert load_and_compare(tmp_path / "mcore" / "release", CONFIGS["dense"], hf, topology, padded=padded) == []

    @pytest.mark.parametrize("name", ["dense", "moe"])
    def test_a_key_for_each_layer(self, tmp_path: Path, name: str) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        written(tmp_path, CONFIGS[name], hf, per_layer=True)
        found = dcp.shapes(tmp_path / "mcore" / "release")
        assert "vision_model.decoder.deepstack_merger_list.1.linear_fc2.bias" in found
        assert not any(".layers.self_attention." in key for key in found)
        # What asks for per-layer keys here is the flag in common.pt, as in Megatron-LM.
        assert load_and_compare(tmp_path / "mcore" / "release", CONFIGS[name], hf, Topology(tp=2)) == []

    def test_cut_into_chunks_and_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch_dist_write, "CHUNK", 3000)  # no multiple of any row
        monkeypatch.setattr(torch_dist_write, "FILE", 100_000)
        hf = random_hf_tensors(CONFIGS["moe"])
        written(tmp_path, CONFIGS["moe"], hf)
        release = tmp_path / "mcore" / "release"
        assert load_and_compare(release, CONFIGS["moe"], hf, Topology(tp=2, ep=2)) == []
        sizes = [file.stat().st_size for file in release.glob("*.distcp")]
        assert len(sizes) > 5
        assert max(sizes) <= 100_000
        entries = dcp.metadata(release).state_dict_metadata
        assert (
            len(entries["language_model.decoder.layers.mlp.experts.experts.linear_fc1.weight"].chunks) == 4 * 4 * 3
        )  # layers, experts, 48 rows of 64 by 23

    def test_float32_among_bfloat16(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(CONFIGS["moe"], float32=["*.mlp.gate.weight", "model.language_model.norm.weight"])
        written(tmp_path, CONFIGS["moe"], hf)
        # load_and_compare gives the model's parameters the dtypes of `hf`, and compares dtypes too.
        assert load_and_compare(tmp_path / "mcore" / "release", CONFIGS["moe"], hf, Topology(ep=2)) == []

    def test_cast_to_float32(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(CONFIGS["tied"])
        written(tmp_path, CONFIGS["tied"], hf, dtype="float32")
        assert (
            load_and_compare(
                tmp_path / "mcore" / "release", CONFIGS["tied"], {n: t.float() for n, t in hf.items()}, Topology()
            )
            == []
        )

    def test_no_bit_pattern_is_touched(self, tmp_path: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        hf = {
            n: torch.randint(-(2**15), 2**15, t.shape, generator=generator).short().view(torch.bfloat16)
            for n, t in random_hf_tensors(tiny()).items()
        }
        written(tmp_path, tiny(), hf)
        assert load_and_compare(tmp_path / "mcore" / "release", tiny(), hf, Topology()) == []


def test_layers_of_different_dtypes_are_refused(tmp_path: Path) -> None:
    hf = random_hf_tensors(tiny(), float32=["model.language_model.layers.2.self_attn.q_norm.weight"])
    with pytest.raises(
        MismatchError, match=r"language_model\.decoder\.layers\.self_attention\.q_layernorm\.weight differ"
    ) as refused:
        written(tmp_path, tiny(), hf)
    assert "--dtype" in refused.value.hint
    assert not (tmp_path / "mcore").exists()
    written(tmp_path / "again", tiny(), hf, dtype="bfloat16")


class TestReadByTorch:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_tensors(self, tmp_path: Path, name: str) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        written(tmp_path, CONFIGS[name], hf)
        found = dcp.unstacked(dcp.load(tmp_path / "mcore" / "release"))
        assert differing(found, whole(CONFIGS[name], hf)) == []

    def test_padding_is_zeros(self, tmp_path: Path) -> None:
        report = written(tmp_path, tiny(), random_hf_tensors(tiny()), make_vocab_size_divisible_by=100)
        state = dcp.load(tmp_path / "mcore" / "release")
        for name in ("embedding.word_embeddings", "output_layer"):
            rows = state[f"language_model.{name}.weight"]
            assert rows.shape == (300, 64)
            assert rows[:248].count_nonzero(dim=1).all()
            assert not rows[248:].any()
        assert report.data["target_padding_rows"] == 52

    @pytest.mark.parametrize(("name", "stacked"), [("dense", True), ("mixed", False)])
    def test_layers_are_stacked_where_they_are_alike(self, tmp_path: Path, name: str, stacked: bool) -> None:
        written(tmp_path, CONFIGS[name], random_hf_tensors(CONFIGS[name]))
        found = dcp.shapes(tmp_path / "mcore" / "release")
        assert ("language_model.decoder.layers.self_attention.linear_qkv.weight" in found) is stacked
        assert ("language_model.decoder.layers.3.self_attention.linear_qkv.weight" in found) is not stacked

    @pytest.mark.parametrize("name", ["dense", "moe", "mixed", "2.5"])
    def test_keys_are_those_that_megatron_core_writes(self, tmp_path: Path, name: str) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        written(tmp_path, CONFIGS[name], hf)
        theirs, ours = (
            dcp.load(save(tmp_path / "theirs", CONFIGS[name], hf, Topology(), optimizer=False)),
            dcp.load(tmp_path / "mcore" / "release"),
        )
        theirs.pop("common_state/shard_0_1", None)  # of newer releases, which still read common.pt
        assert ours.keys() == theirs.keys()
        bytes_of = {key: value for key, value in ours.items() if "_extra_state" in key}
        assert len(bytes_of) > 30
        for value in bytes_of.values():  # as Transformer Engine leaves it
            assert isinstance(value, list)
            assert [(t.dtype, t.numel()) for t in value] == [(torch.uint8, 0)]

    def test_metadata_has_the_attributes_that_torch_and_megatron_core_write(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        written(tmp_path, tiny(), hf)
        state = dcp.load(tmp_path / "mcore" / "release")
        plain = {key: value if isinstance(value, torch.Tensor) else "no tensor" for key, value in state.items()}
        with warnings.catch_warnings(action="ignore"):  # that it saves without a process group
            checkpoint.save(plain, checkpoint_id=tmp_path / "torch", no_dist=True)
        ours = vars(unpickled(tmp_path / "mcore" / "release"))
        by_torch = vars(unpickled(tmp_path / "torch"))
        by_megatron = vars(unpickled(save(tmp_path / "theirs", tiny(), hf, Topology(), optimizer=False)))
        by_megatron.pop("all_local_plans")  # which ranks saved what, for the next save of the same run
        assert ours.keys() == by_torch.keys() == by_megatron.keys()
        assert ours["version"] == by_torch["version"] == by_megatron["version"]
        assert ours["planner_data"] is by_megatron["planner_data"] is None
        # Where and by which run it was saved is nobody's business.
        assert vars(ours["storage_meta"]) == vars(StorageMeta())
        assert type(ours["storage_meta"]) is type(by_torch["storage_meta"]) is type(by_megatron["storage_meta"])
        entries = [set(map(kind_of, found["state_dict_metadata"].values())) for found in (ours, by_torch, by_megatron)]
        assert entries[0] == entries[1] == entries[2]
        places = [
            {(kind_of(index), kind_of(place)) for index, place in found["storage_data"].items()}
            for found in (ours, by_torch)
        ]
        assert places[0] == places[1]  # megatron-core leaves out `index`, a hint for looking up

    def test_metadata_is_the_same_each_time(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        for place in ("one", "another"):
            written(tmp_path / place, tiny(), hf)
        first, second = ((tmp_path / p / "mcore/release/.metadata").read_bytes() for p in ("one", "another"))
        assert first == second
        assert str(tmp_path).encode() not in first

    def test_metadata_loads_where_records_have_fewer_fields(self, tmp_path: Path) -> None:
        """As in torch 2.6, whose Metadata has no version and whose StorageMeta may have no modules."""
        written(tmp_path, tiny(), random_hf_tensors(tiny()))

        @dataclass
        class OldStorageMeta:
            checkpoint_id: str | None = None
            save_id: str | None = None
            load_id: str | None = None

        @dataclass
        class OldMetadata:
            state_dict_metadata: dict[str, Any]
            planner_data: Any = None
            storage_data: Any = None
            storage_meta: OldStorageMeta | None = None

        old = {"Metadata": OldMetadata, "StorageMeta": OldStorageMeta}
        named: set[tuple[str, str]] = set()

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                named.add((module, name))
                return old.get(name) or super().find_class(module, name)

        with (tmp_path / "mcore/release/.metadata").open("rb") as file:
            found = Unpickler(file).load()
        assert found.storage_meta == OldStorageMeta()
        assert found.state_dict_metadata == dcp.metadata(tmp_path / "mcore/release").state_dict_metadata
        records = {name for module, name in named if module == "torch.distributed.checkpoint.metadata"}
        chunks = {"BytesStorageMetadata", "ChunkStorageMetadata", "MetadataIndex"}
        assert records == {*old, *chunks, "_MEM_FORMAT_ENCODING", "TensorProperties", "TensorStorageMetadata"}
        assert named - {("torch.distributed.checkpoint.metadata", name) for name in records} == {
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("torch.serialization", "_get_layout"),
            ("torch", "Size"),
            ("torch", "bfloat16"),
        }

    def test_every_item_is_a_sound_zip(self, tmp_path: Path) -> None:
        written(tmp_path, CONFIGS["moe"], random_hf_tensors(CONFIGS["moe"]))
        release = tmp_path / "mcore" / "release"
        found = list(dcp.items(release))
        assert {key for key, _ in found} == dcp.metadata(release).state_dict_metadata.keys()
        for key, data in found:
            with zipfile.ZipFile(io.BytesIO(data)) as item:
                assert item.testzip() is None, key  # reads every member and compares its CRC-32
        # Back to back, nothing between and nothing twice.
        places = sorted((p.relative_path, p.offset, p.length) for p in dcp.metadata(release).storage_data.values())
        end = 0
        for _, offset, length in places:
            assert offset == end
            end += length
        assert end == (release / "__0_0.distcp").stat().st_size


def unpickled(directory: Path) -> Metadata:
    """`.metadata` as it is in the file; torch's reader adds what it knows of its own run."""
    found: Metadata = pickle.loads((directory / ".metadata").read_bytes())
    return found


def kind_of(record: object) -> tuple[object, ...]:
    """A record's class, and the names and classes of its attributes."""
    return type(record), *((name, type(value)) for name, value in sorted(vars(record).items()))


def as_megatron_reads(tracker: Path) -> Path:
    """The directory that Megatron-LM opens for `--load`: its read_metadata and get_checkpoint_name, restated."""
    word = tracker.read_text().strip()
    try:
        iteration, release = int(word), False
    except ValueError:
        iteration, release = 0, word == "release"
        assert release, "Megatron-LM: invalid metadata file"
    assert iteration > 0 or release, "Megatron-LM: error parsing metadata file"
    return tracker.parent / ("release" if release else f"iter_{iteration:07d}")


class TestDirectory:
    @pytest.mark.parametrize(
        ("iteration", "folder"), [(None, "release"), (1, "iter_0000001"), (12345678, "iter_12345678")]
    )
    def test_tracker(self, tmp_path: Path, iteration: int | None, folder: str) -> None:
        hf = random_hf_tensors(tiny())
        written(tmp_path, tiny(), hf, as_iteration=iteration)
        opened = as_megatron_reads(tmp_path / "mcore" / "latest_checkpointed_iteration.txt")
        assert opened == tmp_path / "mcore" / folder
        assert load_and_compare(opened, tiny(), hf, Topology()) == []
        assert sorted(p.name for p in (tmp_path / "mcore").iterdir()) == sorted(
            [
                folder,
                "huggingface",
                "latest_checkpointed_iteration.txt",
                "vlconv.json",
                *["iter_0000000"] * (iteration is None),
            ]
        )

    def test_an_iteration_that_was_added(self, tmp_path: Path) -> None:
        """Config and tokenizer files lie inside it, and megatron-core does not mind."""
        hf, other = random_hf_tensors(tiny()), {name: t + 1 for name, t in random_hf_tensors(tiny()).items()}
        written(tmp_path, tiny(), other, as_iteration=5)
        written(tmp_path, tiny(), hf, as_iteration=7, set_latest=True)
        opened = as_megatron_reads(tmp_path / "mcore" / "latest_checkpointed_iteration.txt")
        assert opened.name == "iter_0000007" and (opened / "huggingface" / "config.json").is_file()
        assert load_and_compare(opened, tiny(), hf, Topology(tp=2)) == []
        assert load_and_compare(tmp_path / "mcore" / "iter_0000005", tiny(), other, Topology()) == []

    @pytest.mark.parametrize(("per_layer", "flag"), [(False, {}), (True, {"non_homogeneous_layers": True})])
    @pytest.mark.parametrize("iteration", [None, 7])
    def test_common_pt(self, tmp_path: Path, per_layer: bool, flag: dict[str, bool], iteration: int | None) -> None:
        written(tmp_path, tiny(), random_hf_tensors(tiny()), as_iteration=iteration, per_layer=per_layer)
        opened = as_megatron_reads(tmp_path / "mcore" / "latest_checkpointed_iteration.txt")
        assert torch.load(opened / "common.pt", weights_only=True) == {
            "content_metadata": {"singleton_local_shards": False, "chained_optim_avoid_prefix": True, **flag},
            "checkpoint_version": 3.0,
            "iteration": iteration or 0,
        }

    def test_metadata_json(self, tmp_path: Path) -> None:
        written(tmp_path, tiny(), random_hf_tensors(tiny()))
        release = tmp_path / "mcore" / "release"
        versions = {
            "sharded_backend": "torch_dist",
            "sharded_backend_version": 1,
            "common_backend": "torch",
            "common_backend_version": 1,
        }
        assert json.loads((release / "metadata.json").read_text()) == versions
        assert sorted(p.name for p in release.iterdir()) == [
            ".metadata",
            "__0_0.distcp",
            "common.pt",
            "metadata.json",
            "run_config.yaml",
        ]

    def test_the_way_back_needs_no_reference(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        written(tmp_path, tiny(), hf, make_vocab_size_divisible_by=128)
        report = mcore2hf(tmp_path / "mcore", tmp_path / "back")
        assert differing(read_hf(tmp_path / "back"), hf) == []
        assert report.data["reference_because"] == "../huggingface beside the checkpoint"
        beside = {p.name: p.read_bytes() for p in (tmp_path / "hf").iterdir() if "safetensors" not in p.name}
        assert {p.name: p.read_bytes() for p in (tmp_path / "mcore" / "huggingface").iterdir()} == beside
        assert beside.keys() <= {p.name for p in (tmp_path / "back").iterdir()}
