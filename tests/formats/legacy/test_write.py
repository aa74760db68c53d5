"""hf2mcore --format torch: rank files that megatron-core's modules load strictly at the topology they were written for,
and that say what Megatron-LM asks.

Expected values come from tests/mcore/formulas.py and tests/trainers, which know nothing of vlconv's tables. Also
torch_dist with a key for each layer.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.legacy import load_legacy, save_legacy
from mcore.load import load_and_compare
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import differing, read_hf, reference_config, write_hf
from trainers.ranks import Grid, write_ranks

from vlconv.converters import Hf2McoreOptions, Report, hf2mcore, mcore2hf
from vlconv.converters.errors import MismatchError, OptionError, UnsupportedError
from vlconv.converters.models.shared.config import ModelConfig

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "few groups": tiny(groups=2),
    "2.5": tiny_2_5(),
    "2.5 tied": tiny_2_5(tied=True),
}
Tensors = dict[str, torch.Tensor]

ONE_RANK = Topology()


def written(tmp_path: Path, config: ModelConfig, hf: Tensors, topology: Topology = ONE_RANK, **options: Any) -> Report:
    """Write a Hugging Face directory and convert it; the checkpoint is tmp_path/mcore."""
    sizes = {
        "tensor_model_parallel_size": topology.tp,
        "pipeline_model_parallel_size": topology.pp,
        "virtual_pipeline_model_parallel_size": topology.vpp,
        "expert_model_parallel_size": topology.ep,
        "expert_tensor_parallel_size": topology.etp,
        "decoder_first_pipeline_num_layers": topology.first,
        "decoder_last_pipeline_num_layers": topology.last,
    }
    report = hf2mcore(
        write_hf(tmp_path / "hf", config, hf),
        tmp_path / "mcore",
        Hf2McoreOptions(**{"format": "torch", **sizes, **options}),
    )
    assert report.status == "done"
    return report


def states(directory: Path) -> dict[str, dict[str, Any]]:
    """What torch.load makes of every rank's file, by the rank's folder."""
    return {
        file.parent.name: torch.load(file, weights_only=False)
        for file in sorted((directory / "release").glob("*/model_optim_rng.pt"))
    }


CASES: list[tuple[str, Topology, dict[str, Any]]] = [
    ("dense", Topology(tp=2), {"padded": True}),
    ("dense", Topology(tp=2, pp=2, vpp=2), {}),
    ("dense", Topology(pp=3, first=1, last=2), {}),
    ("tied", Topology(tp=2, pp=2), {"padded": True}),
    ("tied", Topology(), {}),
    ("2.5", Topology(tp=2, pp=2), {}),
    ("moe", Topology(ep=2), {}),
    ("moe", Topology(tp=2, pp=2, ep=2), {}),
    ("mixed", Topology(tp=2, ep=2, etp=1), {}),
    ("few groups", Topology(tp=4), {}),
]
MORE: list[tuple[str, Topology, dict[str, Any]]] = [
    ("dense", Topology(pp=2), {}),
    ("dense", Topology(tp=4), {"padded": True}),
    ("dense", Topology(tp=2, pp=2, first=1), {}),
    ("dense", Topology(pp=2, last=1), {}),
    ("tied", Topology(tp=2, pp=2, vpp=2), {}),
    ("2.5", Topology(tp=4), {"padded": True}),
    ("2.5 tied", Topology(pp=2, vpp=2), {}),
    ("moe", Topology(tp=2, ep=2, etp=1), {}),
    ("moe", Topology(tp=2, ep=4, etp=1), {"padded": True}),
    ("mixed", Topology(tp=2, pp=2), {}),
]


def loads(tmp_path: Path, name: str, topology: Topology, padded: bool = False) -> None:
    hf = random_hf_tensors(CONFIGS[name])
    report = written(tmp_path, CONFIGS[name], hf, topology, make_vocab_size_divisible_by=128 if padded else None)
    # load_state_dict(strict=True): the same names, extra states too, and the same shapes; then every parameter's bits.
    assert load_legacy(tmp_path / "mcore" / "release", CONFIGS[name], hf, topology, padded=padded) == []
    assert report.data["target_padding_rows"] == (-248 % (128 * topology.tp) if padded else 0)
    sizes = {"TP": topology.tp, "PP": topology.pp, "VPP": topology.vpp, "EP": topology.ep, "ETP": topology.expert_tp}
    assert (report.data["target_format"], report.data["target_topology"]) == ("torch", sizes)


@pytest.mark.parametrize(("name", "topology", "how"), CASES, ids=str)
def test_loaded_by_megatron_core(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    loads(tmp_path, name, topology, **how)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "topology", "how"), MORE, ids=str)
def test_more_loaded_by_megatron_core(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    loads(tmp_path, name, topology, **how)


def test_experts_that_are_on_several_tensor_ranks(tmp_path: Path) -> None:
    """Four tensor-parallel ranks and half the experts on each: every expert is in two files."""
    hf, topology = random_hf_tensors(tiny(moe=True)), Topology(tp=4, ep=2, etp=1)
    written(tmp_path, tiny(moe=True), hf, topology)
    assert list(states(tmp_path / "mcore")) == ["mp_rank_00_000", "mp_rank_01_001", "mp_rank_02_000", "mp_rank_03_001"]
    assert load_legacy(tmp_path / "mcore" / "release", tiny(moe=True), hf, topology) == []
    mcore2hf(tmp_path / "mcore", tmp_path / "back")
    assert differing(read_hf(tmp_path / "back"), hf) == []


@pytest.mark.parametrize(
    ("name", "topology"),
    [("tied", Topology(tp=2, pp=2, vpp=2)), ("mixed", Topology(tp=2, pp=2, ep=2, etp=1)), ("2.5", Topology(pp=2))],
    ids=str,
)
def test_files_hold_what_those_of_megatron_core_do(tmp_path: Path, name: str, topology: Topology) -> None:
    """In a trainer's own files too there are extra states that are empty, and one that is None."""
    config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
    written(tmp_path, config, hf, topology)
    save_legacy(tmp_path / "theirs", config, hf, topology, optimizer=False)
    ours, theirs = states(tmp_path / "mcore"), states(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for folder, state in theirs.items():
        assert ours[folder].keys() == state.keys()
        for chunk in (key for key in state if key.startswith("model")):
            assert {n: described(t) for n, t in ours[folder][chunk].items()} == {
                n: described(t) for n, t in state[chunk].items()
            }


def described(value: torch.Tensor | None) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


class TestFiles:
    def test_sound_zips_of_plain_things(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(moe=True), float32=["*.mlp.gate.weight"])
        written(tmp_path, tiny(moe=True), hf, Topology(tp=2, pp=2, ep=2, etp=1), as_iteration=7)
        files = sorted((tmp_path / "mcore").glob("*/*/*.pt"))
        assert [str(file.relative_to(tmp_path / "mcore")) for file in files] == [
            f"iter_0000007/mp_rank_{tp:02d}_{pp:03d}_{tp:03d}/model_optim_rng.pt" for tp in range(2) for pp in range(2)
        ]
        assert (tmp_path / "mcore" / "latest_checkpointed_iteration.txt").read_text() == "7"
        for file in files:
            with zipfile.ZipFile(file) as archive:
                assert archive.testzip() is None  # reads every member and compares its CRC-32
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = torch.load(file, weights_only=True)  # nothing in it but tensors and plain values
            assert state.keys() == {"args", "checkpoint_version", "iteration", "model"}
            assert (state["checkpoint_version"], state["iteration"]) == (3.0, 7)
            assert {t.dtype for name, t in state["model"].items() if "router" in name} == {torch.float32}

    def test_the_way_back_needs_no_reference(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(tied=True))
        written(tmp_path, tiny(tied=True), hf, Topology(tp=2, pp=2), make_vocab_size_divisible_by=100)
        report = mcore2hf(tmp_path / "mcore", tmp_path / "back")
        assert differing(read_hf(tmp_path / "back"), hf) == []
        assert report.data["padding_because"] == "the checkpoint's args state vocab_size 248 and padded_vocab_size 400"
        assert report.data["agrees_with"] == ["the checkpoint's args"]

    def test_padding_is_zeros(self, tmp_path: Path) -> None:
        written(tmp_path, tiny(), random_hf_tensors(tiny()), Topology(tp=2), make_vocab_size_divisible_by=100)
        first, second = (
            state["model"]["language_model.output_layer.weight"] for state in states(tmp_path / "mcore").values()
        )
        assert first.shape == second.shape == (200, 64)
        assert first.count_nonzero(dim=1).all() and second[:48].count_nonzero(dim=1).all()
        assert not second[48:].any()

    def test_no_bit_pattern_is_touched(self, tmp_path: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        hf = {
            n: torch.randint(-(2**15), 2**15, t.shape, generator=generator).short().view(torch.bfloat16)
            for n, t in random_hf_tensors(tiny()).items()
        }
        written(tmp_path, tiny(), hf, Topology(tp=2))
        assert load_legacy(tmp_path / "mcore" / "release", tiny(), hf, Topology(tp=2)) == []


class TestOtherTrainers:
    """The same files as their own converters make, name for name."""

    @pytest.mark.parametrize(
        ("layout", "name", "grid"),
        [
            ("pai", "dense", Grid([[2, 2]], tp=2)),
            ("pai", "moe", Grid([[4]], tp=2, ep=2)),
            ("mindspeed-mm", "tied", Grid([[1, 1], [1, 1]], tp=2)),
            ("mindspeed-mm", "moe", Grid([[2, 2]], tp=2, ep=2)),
            ("mindspeed-mm", "2.5", Grid([[2, 2]], tp=4)),
        ],
    )
    def test_state_dicts(self, tmp_path: Path, layout: str, name: str, grid: Grid) -> None:
        config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
        topology = Topology(tp=grid.tp, pp=grid.stages, vpp=len(grid.text), ep=grid.ep)
        written(tmp_path, config, hf, topology, as_layout=layout)
        write_ranks(tmp_path / "theirs", layout, reference_config(config), hf, grid, grouped=layout == "pai")
        ours = states(tmp_path / "mcore")
        theirs = {
            file.parent.name: torch.load(file, weights_only=True)
            for file in (tmp_path / "theirs").glob("release/*/*.pt")
        }
        assert ours.keys() == theirs.keys()
        for folder, expected in theirs.items():
            for chunk, tensors in expected.items():
                found = {n: t for n, t in ours[folder][chunk].items() if not n.endswith("_extra_state")}
                assert differing(found, tensors) == []
        extra = any(n.endswith("_extra_state") for state in ours.values() for chunk in expected for n in state[chunk])
        assert extra is (layout == "pai")  # MindSpeed-MM's modules are not Transformer Engine's


def check_checkpoint_args(saved: argparse.Namespace, version: float, args: argparse.Namespace) -> None:
    """The comparisons that Megatron-LM makes before it loads weights, restated:
    what a trainer is started with, against what the checkpoint says.
    """
    names = ["num_layers", "hidden_size", "num_attention_heads"]
    names += [
        "max_position_embeddings",
        "make_vocab_size_divisible_by",
        "padded_vocab_size",
        "tokenizer_type",
    ]  # where a vocab_file is given
    names += (
        ["tensor_model_parallel_size", "pipeline_model_parallel_size"] if version >= 3.0 else ["model_parallel_size"]
    )
    assert {
        name: (getattr(saved, name), getattr(args, name))
        for name in names
        if getattr(saved, name) != getattr(args, name)
    } == {}
    assert getattr(saved, "add_position_embedding", True) == args.add_position_embedding


class TestArgs:
    @pytest.mark.parametrize(
        ("name", "topology"),
        [
            ("dense", Topology(tp=2, pp=2, vpp=2)),
            ("moe", Topology(tp=2, ep=2, etp=1)),
            ("2.5 tied", Topology(pp=3, first=1, last=2)),
        ],
    )
    def test_megatron_lm_accepts_them(self, tmp_path: Path, name: str, topology: Topology) -> None:
        config = CONFIGS[name]
        written(tmp_path, config, random_hf_tensors(config), topology, make_vocab_size_divisible_by=128)
        trainer = argparse.Namespace(
            num_layers=4,
            hidden_size=64,
            num_attention_heads=8,
            add_position_embedding=True,
            max_position_embeddings=4096,
            make_vocab_size_divisible_by=128,
            padded_vocab_size=256,
            tokenizer_type="HuggingFaceTokenizer",
            tensor_model_parallel_size=topology.tp,
            pipeline_model_parallel_size=topology.pp,
        )
        found = states(tmp_path / "mcore")
        assert len(found) == topology.pp * topology.tp
        for state in found.values():
            check_checkpoint_args(state["args"], state["checkpoint_version"], trainer)

    def test_all_that_they_state(self, tmp_path: Path) -> None:
        written(
            tmp_path,
            tiny(moe=True),
            random_hf_tensors(tiny(moe=True)),
            Topology(tp=2, pp=2, ep=2),
            make_vocab_size_divisible_by=128,
        )
        (args, *others) = [state["args"] for state in states(tmp_path / "mcore").values()]
        assert type(args) is argparse.Namespace
        assert all(other == args for other in others)
        assert vars(args) == {
            "num_layers": 4,
            "hidden_size": 64,
            "num_attention_heads": 8,
            "group_query_attention": True,
            "num_query_groups": 4,
            "kv_channels": 16,
            "ffn_hidden_size": 96,
            "vocab_size": 248,
            "padded_vocab_size": 256,
            "make_vocab_size_divisible_by": 128,
            "max_position_embeddings": 4096,
            "untie_embeddings_and_output_weights": True,
            "num_experts": 4,
            "moe_ffn_hidden_size": 24,
            "moe_router_topk": 2,
            "moe_router_pre_softmax": False,
            "moe_layer_freq": 1,
            "moe_grouped_gemm": True,
            "normalization": "RMSNorm",
            "norm_epsilon": 1e-06,
            "qk_layernorm": True,
            "add_bias_linear": False,
            "add_qkv_bias": False,
            "swiglu": True,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "position_embedding_type": "mrope",
            "add_position_embedding": True,
            "use_rotary_position_embeddings": False,
            "mrope_section": [4, 2, 2],
            "rotary_base": 5000000,
            "rotary_percent": 1.0,
            "rotary_interleaved": False,
            "params_dtype": torch.bfloat16,
            "tokenizer_type": "HuggingFaceTokenizer",
            "ckpt_format": "torch",
            "tensor_model_parallel_size": 2,
            "pipeline_model_parallel_size": 2,
            "virtual_pipeline_model_parallel_size": None,
            "expert_model_parallel_size": 2,
            "expert_tensor_parallel_size": 2,
            "decoder_first_pipeline_num_layers": None,
            "decoder_last_pipeline_num_layers": None,
        }


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "topology", "says", "hint"),
        [
            (
                "dense",
                Topology(tp=8),
                "tensor parallel size 8 does not divide vision_config.num_heads = 4",
                "Sizes that would do: 1, 2, 4.",
            ),
            (
                "dense",
                Topology(tp=3),
                "tensor parallel size 3 does not divide text_config.num_key_value_heads = 4",
                "Sizes that would do: 1, 2, 4.",
            ),
            (
                "dense",
                Topology(pp=3),
                "4 layers do not divide by the number of pipeline stages 3",
                "Sizes that would do: 1, 2, 4.",
            ),
            (
                "dense",
                Topology(pp=2, vpp=3),
                "2 layers per stage do not divide by the virtual pipeline size 3",
                "Sizes that would do: 1, 2.",
            ),
            (
                "dense",
                Topology(pp=3, first=1, last=1, vpp=2),
                "1 layers of pipeline stage 0 do not divide by the virtual pipeline size 2",
                "would do: 1.",
            ),
            ("dense", Topology(pp=2, first=3, last=2), "first and last stage take 5 of 4 layers", "other stage sizes"),
            ("dense", Topology(pp=2, first=1, last=1), "first and last stage take 2 of 4 layers", "other stage sizes"),
            ("dense", Topology(ep=2), "expert parallel size 2, but the model has no experts", "--ep"),
            (
                "moe",
                Topology(ep=3),
                "expert parallel size 3 does not divide text_config.num_experts = 4",
                "Sizes that would do: 1, 2, 4.",
            ),
            ("moe", Topology(tp=4, etp=2), "expert tensor parallel size 2 with tensor parallel size 4", "--etp 1"),
        ],
        ids=str,
    )
    def test_sizes_that_cannot_be(self, tmp_path: Path, name: str, topology: Topology, says: str, hint: str) -> None:
        with pytest.raises(MismatchError) as refused:
            written(tmp_path, CONFIGS[name], random_hf_tensors(CONFIGS[name]), topology)
        assert says in refused.value.what and hint in refused.value.hint
        assert not (tmp_path / "mcore").exists()

    def test_a_vocabulary_that_does_not_divide(self, tmp_path: Path) -> None:
        config = tiny(vocab=249)
        hf = random_hf_tensors(config)
        with pytest.raises(
            MismatchError, match="a vocabulary of 249 rows does not divide by tensor parallel size 2"
        ) as refused:
            written(tmp_path, config, hf, Topology(tp=2))
        assert "--make-vocab-size-divisible-by" in refused.value.hint
        written(tmp_path, config, hf, Topology(tp=2), make_vocab_size_divisible_by=1)

    @pytest.mark.parametrize(
        ("layout", "name"), [("roll", "dense"), ("ms-swift", "moe"), ("megatron-bridge-0.3", "dense"), ("hf", "dense")]
    )
    def test_layouts_that_no_one_reads_in_this_format(self, tmp_path: Path, layout: str, name: str) -> None:
        with pytest.raises(UnsupportedError) as refused:
            written(tmp_path, CONFIGS[name], random_hf_tensors(CONFIGS[name]), as_layout=layout)
        assert refused.value.what.startswith(f"layout {layout} (")
        assert "as torch there are: mbridge, pai, mindspeed-mm" in refused.value.hint

    @pytest.mark.parametrize(
        "options",
        [
            {"tensor_model_parallel_size": 2},
            {"pipeline_model_parallel_size": 2},
            {"expert_model_parallel_size": 2},
            {"expert_tensor_parallel_size": 2},
            {"tensor_model_parallel_size": 2, "expert_tensor_parallel_size": 1},
        ],
        ids=str,
    )
    def test_a_topology_for_torch_dist(self, tmp_path: Path, options: dict[str, int]) -> None:
        self.not_for(tmp_path, {**options, "format": "torch_dist"}, "torch_dist is loaded at any topology")

    def test_keys_per_layer_for_rank_files(self, tmp_path: Path) -> None:
        self.not_for(tmp_path, {"per_layer": True}, "--per-layer is a form of --format torch_dist")

    @pytest.mark.parametrize(
        ("topology", "says"),
        [(Topology(vpp=2), "a virtual pipeline size needs a pipeline"), (Topology(first=2), "there is one stage")],
        ids=str,
    )
    def test_a_pipeline_of_one_stage(self, tmp_path: Path, topology: Topology, says: str) -> None:
        with pytest.raises(OptionError, match=says) as refused:
            written(tmp_path, tiny(), random_hf_tensors(tiny()), topology)
        assert "--pp" in refused.value.hint
        assert not (tmp_path / "mcore").exists()

    def not_for(self, tmp_path: Path, options: dict[str, Any], says: str) -> None:
        with pytest.raises(OptionError, match=says):
            written(tmp_path, tiny(moe=True), random_hf_tensors(tiny(moe=True)), **options)
        assert not (tmp_path / "mcore").exists()


@pytest.mark.parametrize(
    ("name", "topology"),
    [("dense", Topology(tp=2, pp=2)), ("moe", Topology(tp=2, ep=2)), ("2.5 tied", Topology(tp=4))],
    ids=str,
)
def test_torch_dist_per_layer_is_loaded_strictly(tmp_path: Path, name: str, topology: Topology) -> None:
    hf = random_hf_tensors(CONFIGS[name])
    written(tmp_path, CONFIGS[name], hf, format="torch_dist", per_layer=True)
    # Which form of keys to ask for, the loader takes from content_metadata.
    assert load_and_compare(tmp_path / "mcore" / "release", CONFIGS[name], hf, topology) == []
