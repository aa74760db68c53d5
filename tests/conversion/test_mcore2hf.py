"""mcore2hf on checkpoints that megatron-core wrote: every Hugging Face tensor comes back bit for bit.

The checkpoints are filled by tests/mcore/formulas.py, which slices Hugging Face tensors and knows nothing of vlconv's
tables. None is laid out by our own code.
"""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import dcp
import numpy as np
import pytest
import torch
from mcore.fill import whole
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Form, Topology
from references import differing, read_hf, write_reference

from vlconv.converters import Mcore2HfOptions, Report, mcore2hf
from vlconv.converters.errors import MismatchError, NotACheckpoint
from vlconv.converters.models.shared.config import ModelConfig

pytestmark = pytest.mark.mcore_versions

FACTORS = {
    "tp": (1, 2, 4),
    "pp": (1, 2),
    "vpp": (1, 2),
    "form": ("stacked", "per_layer", "singleton"),
    "tied": (False, True),
    "padded": (False, True),
}


class Case(NamedTuple):
    """How a checkpoint was saved; fields in the order of FACTORS."""

    tp: int
    pp: int
    vpp: int
    form: Form
    tied: bool
    padded: bool

    def __str__(self) -> str:
        return "-".join(
            [str(Topology(self.tp, self.pp, self.vpp)), self.form, *["tied"] * self.tied, *["padded"] * self.padded]
        )


PRODUCT = [case for case in map(Case._make, product(*FACTORS.values())) if case.pp > 1 or case.vpp == 1]
PAIRWISE = [
    Case(1, 1, 1, "singleton", False, False),
    Case(1, 2, 1, "stacked", False, True),
    Case(1, 2, 2, "per_layer", True, False),
    Case(2, 1, 1, "per_layer", False, False),
    Case(2, 1, 1, "singleton", True, False),
    Case(2, 2, 2, "stacked", False, True),
    Case(4, 1, 1, "per_layer", False, True),
    Case(4, 1, 1, "stacked", True, False),
    Case(4, 2, 1, "stacked", False, True),
    Case(4, 2, 2, "singleton", True, True),
]


def test_every_pair_that_can_occur_is_covered() -> None:
    assert len(PRODUCT) == 108
    assert set(PAIRWISE) <= set(PRODUCT)
    assert len(PAIRWISE) <= 14
    assert pairs(PAIRWISE) == pairs(PRODUCT)
    always = [(4, 1, 1), (2, 2, 2), (4, 2, 1)]
    assert all(any(case[:3] == sizes for case in PAIRWISE) for sizes in always)


def pairs(cases: list[Case]) -> set[Any]:
    return {pair for case in cases for pair in combinations(enumerate(case), 2)}


def converted(
    tmp_path: Path, source: Path, config: ModelConfig, **options: Any
) -> tuple[dict[str, torch.Tensor], Report]:
    """Convert with a reference of this config; the tensors read back, and the report."""
    reference = write_reference(tmp_path / "reference", config)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(reference), **options))
    assert report.status == "done"
    return read_hf(tmp_path / "hf"), report


@pytest.fixture(scope="module")
def trained_with_280_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without args whose vocabulary is larger than the reference's 248."""
    return save(
        tmp_path_factory.mktemp("rows") / "ckpt",
        tiny(vocab=280),
        random_hf_tensors(tiny(vocab=280)),
        Topology(),
        args=False,
    )


@pytest.fixture(scope="module")
def verl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of verl's: the folder above its steps."""
    run = tmp_path_factory.mktemp("verl")
    actor = run / "global_step_5" / "actor"
    save(actor / "dist_ckpt", tiny(), random_hf_tensors(tiny()), Topology(tp=2), args=False)
    write_reference(actor / "huggingface", tiny())
    return run


def comes_back(tmp_path: Path, config: ModelConfig, topology: Topology, form: Form = "stacked", **how: Any) -> Report:
    """Save, convert, compare every tensor."""
    hf = random_hf_tensors(config)
    source = save(tmp_path / "ckpt", config, hf, topology, form, **how)
    found, report = converted(tmp_path, source, config)
    assert differing(found, hf) == []
    assert report.data["tensors"] == len(hf)
    return report


@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_topologies(tmp_path: Path, case: Case) -> None:
    holds(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in PRODUCT if case not in PAIRWISE], ids=str)
def test_all_topologies(tmp_path: Path, case: Case) -> None:
    holds(tmp_path, case)


def holds(tmp_path: Path, case: Case) -> None:
    report = comes_back(tmp_path, tiny(case.tied), Topology(case.tp, case.pp, case.vpp), case.form, padded=case.padded)
    assert report.data["layout"] == "mbridge"
    assert (
        report.data["form"]
        == {
            "stacked": "layers stacked",
            "per_layer": "one key per layer",
            "singleton": "layers stacked, singleton shards",
        }[case.form]
    )
    assert report.data["tied"] is case.tied
    # 248 rows are padded to a multiple of 128 x tp.
    assert report.data["padding_rows"] == (({1: 256, 2: 256, 4: 512}[case.tp] - 248) if case.padded else 0)
    assert len(report.data["padded_tensors"]) == (1 if case.tied else 2) * case.padded
    # common_state: what earlier releases of megatron-core keep in common.pt.
    assert report.data["ignored"].keys() - {"common state"} == {"optimizer", "rng_state", "_extra_state"}


@pytest.mark.parametrize("topology", [Topology(tp=2, pp=2, first=1), Topology(pp=3, first=2, last=1)], ids=str)
def test_uneven_stages(tmp_path: Path, topology: Topology) -> None:
    comes_back(tmp_path, tiny(), topology)


@pytest.mark.parametrize("form", ["stacked", "per_layer"])
def test_local_spec(tmp_path: Path, form: Form) -> None:
    comes_back(tmp_path, tiny(), Topology(tp=2, pp=2), form, spec="local")
    # The vision tower's norms stand beside its linear layers, where Transformer Engine has them inside.
    norms = {
        name.rpartition(".layers.")[2].removeprefix("0.")
        for name in dcp.shapes(tmp_path / "ckpt")
        if name.startswith("vision_model.decoder.layers.")
    }
    assert {"input_layernorm.bias", "pre_mlp_layernorm.bias"} <= norms
    assert not any("layer_norm_bias" in name for name in norms)


MOE = {
    "grouped": (Topology(tp=2, ep=2), "stacked", {"grouped": True}),
    "sequential": (Topology(tp=2, ep=2), "stacked", {"grouped": False}),
    "etp 1": (Topology(tp=2, ep=2, etp=1), "stacked", {}),
    "etp 2": (Topology(tp=2), "stacked", {"grouped": False}),
    "etp 2, tp 1": (Topology(etp=2), "stacked", {}),
    "ep 4": (Topology(ep=4), "stacked", {"padded": True}),
    "local": (Topology(tp=2, ep=2), "stacked", {"spec": "local"}),
    "local, per layer": (Topology(tp=2, ep=2, etp=1), "per_layer", {"spec": "local"}),
    "per layer": (Topology(tp=2, ep=2, etp=1), "per_layer", {}),
    "singleton": (Topology(tp=2, ep=2), "singleton", {}),
    "singleton, sequential": (Topology(pp=2, ep=2), "singleton", {"grouped": False}),
}


@pytest.mark.parametrize("case", MOE)
def test_experts(tmp_path: Path, case: str) -> None:
    topology, form, how = MOE[case]
    comes_back(tmp_path, tiny(moe=True), topology, form, **how)


@pytest.mark.parametrize(
    ("form", "how"), [("stacked", {}), ("singleton", {"grouped": False}), ("stacked", {"spec": "local"})]
)
def test_experts_beside_dense_layers(tmp_path: Path, form: Form, how: dict[str, Any]) -> None:
    comes_back(tmp_path, tiny(moe=True, dense_layers=[0, 2]), Topology(tp=2, ep=2, etp=1), form, **how)


def test_each_expert_by_itself(tmp_path: Path) -> None:
    config = tiny(moe=True)
    hf = random_hf_tensors(config)
    source = save(tmp_path / "ckpt", config, hf, Topology())
    found, _ = converted(tmp_path, source, config, experts="per-expert")
    for layer in range(config.text.layers):
        at = f"model.language_model.layers.{layer}.mlp.experts"
        both, down = hf.pop(f"{at}.gate_up_proj"), hf.pop(f"{at}.down_proj")
        for e in range(config.text.experts):
            hf[f"{at}.{e}.gate_proj.weight"] = both[e, :, : config.text.moe_ffn].T
            hf[f"{at}.{e}.up_proj.weight"] = both[e, :, config.text.moe_ffn :].T
            hf[f"{at}.{e}.down_proj.weight"] = down[e].T
    assert differing(found, hf) == []


@pytest.mark.parametrize(
    ("form", "topology", "tied", "how"),
    [
        ("stacked", Topology(tp=2, pp=2), False, {"padded": True}),
        ("per_layer", Topology(tp=2), True, {}),
        ("singleton", Topology(pp=2, vpp=2), False, {}),
        ("stacked", Topology(tp=2), False, {"spec": "local"}),
    ],
)
def test_qwen2_5(tmp_path: Path, form: Form, topology: Topology, tied: bool, how: dict[str, Any]) -> None:
    report = comes_back(tmp_path, tiny_2_5(tied), topology, form, **how)
    assert report.data["layout"] == "mbridge-qwen2_5"


def test_qwen2_5_under_new_names(tmp_path: Path) -> None:
    config = tiny_2_5()
    hf = random_hf_tensors(config)
    found, _ = converted(tmp_path, save(tmp_path / "ckpt", config, hf, Topology()), config, hf_names="new")
    assert differing(found, {respelled(name): tensor for name, tensor in hf.items()}) == []


def respelled(name: str) -> str:
    top, _, rest = name.partition(".")
    return {"model": f"model.language_model.{rest}", "visual": f"model.visual.{rest}"}.get(top, name)


class TestValues:
    def test_no_bit_pattern_is_touched(self, tmp_path: Path) -> None:
        """Every kind of NaN, both zeros and infinities pass as they are."""
        config, generator = tiny(), torch.Generator().manual_seed(0)
        hf = {
            name: torch.randint(-(2**15), 2**15, t.shape, generator=generator).short().view(torch.bfloat16)
            for name, t in random_hf_tensors(config).items()
        }
        found, _ = converted(tmp_path, save(tmp_path / "ckpt", config, hf, Topology()), config)
        assert any(tensor.isnan().any() for tensor in found.values())
        assert differing(found, hf) == []

    def test_float32_among_bfloat16_stays(self, tmp_path: Path) -> None:
        config = tiny(moe=True)
        hf = random_hf_tensors(config, float32=["*.mlp.gate.weight", "model.language_model.norm.weight"])
        found, report = converted(tmp_path, save(tmp_path / "ckpt", config, hf, Topology(tp=2, ep=2, etp=1)), config)
        assert differing(found, hf) == []
        assert found["model.language_model.layers.3.mlp.gate.weight"].dtype == torch.float32
        assert report.data["dtypes"] == {"bfloat16": len(whole(config, hf)) - 5, "float32": 5}
        assert config_of(tmp_path)["dtype"] == "bfloat16"

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_cast(self, tmp_path: Path, dtype: str) -> None:
        hf = random_hf_tensors(tiny(), scale=1e-5)  # reaches float16's subnormal numbers
        found, _ = converted(tmp_path, save(tmp_path / "ckpt", tiny(), hf, Topology()), tiny(), dtype=dtype)
        # numpy rounds, not torch: a second opinion.
        assert (
            differing(
                found,
                {
                    name: torch.from_numpy(tensor.float().numpy().astype(getattr(np, dtype)))
                    for name, tensor in hf.items()
                },
            )
            == []
        )
        assert config_of(tmp_path)["dtype"] == dtype

    def test_cast_makes_mixed_dtypes_one(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(), float32=["*.q_norm.weight", "lm_head.weight"])
        found, report = converted(tmp_path, save(tmp_path / "ckpt", tiny(), hf, Topology()), tiny(), dtype="bfloat16")
        assert differing(found, {name: nearest_even(tensor) for name, tensor in hf.items()}) == []
        assert report.data["dtypes"]["float32"] == 5

    def test_cast_refuses_to_make_infinity(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        hf["model.visual.pos_embed.weight"][3, 5] = 1e5
        source = save(tmp_path / "ckpt", tiny(), hf, Topology())
        with pytest.raises(
            MismatchError, match=r"model\.visual\.pos_embed\.weight: holds numbers too large for float16"
        ):
            converted(tmp_path, source, tiny(), dtype="float16")
        assert not (tmp_path / "hf").exists()


def nearest_even(tensor: torch.Tensor) -> torch.Tensor:
    """bfloat16 by integer arithmetic: the upper half of a float32, rounded to nearest, ties to even.

    Finite numbers only.
    """
    bits = tensor.float().numpy().view(np.uint32).astype(np.uint64)
    return torch.from_numpy(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)).view(
        torch.bfloat16
    )


def config_of(tmp_path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((tmp_path / "hf" / "config.json").read_text())
    return document


class TestPadding:
    def test_on_the_word_of_args(self, tmp_path: Path) -> None:
        report = comes_back(tmp_path, tiny(), Topology(), padded=True)
        assert report.data["padding_because"] == "the checkpoint's args state vocab_size 248 and padded_vocab_size 256"

    def test_as_megatron_pads(self, tmp_path: Path) -> None:
        report = comes_back(tmp_path, tiny(tied=True), Topology(tp=4), padded=True, args=False)
        assert report.data["padding_because"] == "Megatron-LM's padding: 248 rounded up to a multiple of 128 x 4"

    def test_as_the_user_says(self, tmp_path: Path, trained_with_280_rows: Path) -> None:
        hf = random_hf_tensors(tiny(vocab=280))
        found, report = converted(tmp_path, trained_with_280_rows, tiny(), make_vocab_size_divisible_by=56)
        for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            hf[name] = hf[name][:248]
        assert differing(found, hf) == []
        assert report.data["padding_rows"] == 32
        assert report.data["padding_because"] == "--make-vocab-size-divisible-by: 248 rounded up to a multiple of 56"

    @pytest.mark.parametrize("divisor", [None, 48])
    def test_unexplained_rows_are_not_cut(
        self, tmp_path: Path, trained_with_280_rows: Path, divisor: int | None
    ) -> None:
        with pytest.raises(
            MismatchError, match=r"280 rows, .*vocab_size is 248, and no usual padding explains"
        ) as refused:
            converted(tmp_path, trained_with_280_rows, tiny(), make_vocab_size_divisible_by=divisor)
        assert "--make-vocab-size-divisible-by" in refused.value.hint
        assert not (tmp_path / "hf").exists()

    def test_too_few_rows_are_refused(self, tmp_path: Path, trained_with_280_rows: Path) -> None:
        with pytest.raises(MismatchError, match=r"280 rows, .*vocab_size is 300"):
            converted(tmp_path, trained_with_280_rows, tiny(vocab=300))

    def test_args_of_another_vocabulary_are_refused(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        source = save(tmp_path / "ckpt", tiny(), hf, Topology(), padded=True)
        with pytest.raises(MismatchError, match="vocab_size"):  # 256 rows would pass for padding
            converted(tmp_path, source, tiny(vocab=250))


class TestDirectories:
    """Where the checkpoint lies, and what lies beside it."""

    def test_areal_states_nothing(self, tmp_path: Path) -> None:
        report = comes_back(tmp_path, tiny(), Topology(), args=False)
        assert "agrees_with" not in report.data
        assert {"text_config.rope_theta", "text_config.rms_norm_eps", "vision_config.num_heads"} <= set(
            report.data["not_provable"]
        )

    def test_args_prove_what_they_state(self, tmp_path: Path) -> None:
        report = comes_back(tmp_path, tiny(), Topology())
        assert report.data["agrees_with"] == ["the checkpoint's args"]
        assert not {"text_config.rope_theta", "text_config.rms_norm_eps"} & set(report.data["not_provable"])
        assert "vision_config.num_heads" in report.data["not_provable"]

    def test_megatron_lm_tracker(self, tmp_path: Path) -> None:
        old, new = random_hf_tensors(tiny(), seed=1), random_hf_tensors(tiny(), seed=2)
        save(tmp_path / "ckpt", tiny(), old, Topology(), iteration=10)
        save(tmp_path / "ckpt", tiny(), new, Topology(), iteration=20)
        found, report = converted(tmp_path, tmp_path / "ckpt", tiny())
        assert differing(found, new) == []
        assert report.data["source"].endswith("iter_0000020")
        found, _ = converted(tmp_path, tmp_path / "ckpt", tiny(), iteration=10, overwrite=True)
        assert differing(found, old) == []

    def test_several_without_a_tracker_are_listed(self, tmp_path: Path) -> None:
        for iteration in (10, 20):
            save(tmp_path / "ckpt", tiny(), random_hf_tensors(tiny(), seed=iteration), Topology(), iteration=iteration)
        (tmp_path / "ckpt" / "latest_checkpointed_iteration.txt").unlink()
        with pytest.raises(NotACheckpoint, match=r"(?s)iter_0000010.*iter_0000020") as refused:
            converted(tmp_path, tmp_path / "ckpt", tiny())
        assert "--iteration" in refused.value.hint
        found, _ = converted(tmp_path, tmp_path / "ckpt", tiny(), iteration=20)
        assert differing(found, random_hf_tensors(tiny(), seed=20)) == []

    @pytest.mark.parametrize("given", [".", "global_step_5", "global_step_5/actor", "global_step_5/actor/dist_ckpt"])
    def test_verl(self, tmp_path: Path, verl: Path, given: str) -> None:
        report = mcore2hf(verl / given, tmp_path / "hf")
        assert differing(read_hf(tmp_path / "hf"), random_hf_tensors(tiny())) == []
        assert report.data["reference"] == str(verl / "global_step_5" / "actor" / "huggingface")
        assert report.data["reference_because"] == "../huggingface beside the checkpoint"

    def test_files_beside_the_weights(self, tmp_path: Path) -> None:
        comes_back(tmp_path, tiny(), Topology())
        reference, made = tmp_path / "reference", tmp_path / "hf"
        theirs = {path.name: path.read_bytes() for path in reference.iterdir() if path.name != "config.json"}
        ours = {path.name: path.read_bytes() for path in made.iterdir() if path.name != "config.json"}
        assert len(theirs) == 8
        assert ours.keys() - theirs.keys() == {"model.safetensors", "vlconv.json"}
        assert {name: ours[name] for name in theirs} == theirs
        assert json.loads((made / "config.json").read_text()) == json.loads((reference / "config.json").read_text()) | {
            "dtype": "bfloat16"
        }

    def test_shards_and_their_index(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        found, report = converted(
            tmp_path, save(tmp_path / "ckpt", tiny(), hf, Topology()), tiny(), max_shard_size=100_000
        )
        assert differing(found, hf) == []
        index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
        sizes = {file: 0 for file in report.data["files"] if file.endswith(".safetensors")}
        for name, file in index["weight_map"].items():
            sizes[file] += hf[name].numel() * 2
        assert len(sizes) > 4
        assert max(sizes.values()) <= 100_000
        assert index["metadata"] == {
            "total_parameters": sum(t.numel() for t in hf.values()),
            "total_size": sum(sizes.values()),
        }
        assert index["weight_map"].keys() == hf.keys()
