"""Adapters from Megatron to peft and back: the trainers' formulas say what goes in, peft what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapters_of_peft import (
    ALPHA,
    EXPERTS,
    RANK,
    adapted,
    adapter_tensors,
    layers_of,
    linear,
    load_adapter,
    logits_of,
    save_adapter,
    state_of,
)
from converting import slow
from dcp import load as load_dcp
from dcp import shapes, unstacked
from logits import load
from lora import canonical, loading, names, saving
from lora.making import Made, make, merged
from references import differing, read_hf
from safetensors.torch import save_file
from tiny import tiny_config, write_tiny_hf
from trainers.places import stacks
from trainers.saving import save, stacked

from vlconv.converters import (
    MismatchError,
    NotACheckpoint,
    ReferenceFault,
    TargetError,
    UnsupportedError,
    hf2mcore,
    mcore2hf,
)

SAMPLED = 2

SCALE = ALPHA / RANK

CASES = [
    ("qwen3_vl", "mbridge", "bridge"),
    ("qwen3_vl_moe", "mbridge", "bridge"),
    slow("qwen3", "megatron-lm", "bridge"),
    slow("qwen3_moe", "megatron-lm", "swift"),
    slow("qwen3_vl", "ms-swift", "swift"),
    slow("qwen3_5", "mbridge", "bridge"),
    slow("qwen3_5_moe", "mbridge", "bridge"),
    slow("qwen3_next", "megatron-lm", "bridge"),
]


def adapter_alone(root: Path, made: Made, tensors: dict[str, torch.Tensor]) -> Path:
    place = save(root / "iter_0000007", stacked(tensors, *stacks(made.name, made.sizes)))
    (place / "run_config.yaml").write_text(yaml.safe_dump({"peft": {"alpha": ALPHA, "dim": RANK}}))
    return root


def base_of(root: Path, made: Made) -> Path:
    write_tiny_hf(root, made.config, tensors=made.hf)
    return root


@pytest.mark.parametrize(("kind", "name", "family"), CASES)
def test_peft_merges_the_export_as_the_trainer_would(tmp_path: Path, kind: str, name: str, family: str) -> None:
    """In float32, rounded once: the trainer's formulas for every weight, up to the order of a sum of four terms."""
    made = make(kind, name)
    base = base_of(tmp_path / "base", made)
    source = adapter_alone(tmp_path / "adapter", made, getattr(names, family)(made))
    report = mcore2hf(source, tmp_path / "peft", adapter=True, base=base)
    assert "MTP" not in report.warnings and report.data["peft"]["r"] == RANK
    left = any("they are left out" in warning for warning in report.warnings)
    assert left == kind.startswith("qwen3_5")  # their prediction head has no module in transformers
    command = f"vlconv verify {source / 'iter_0000007'} {tmp_path / 'peft'} --base {base}"
    assert [step.command for step in report.steps if step.name == "verify"] == ([] if left else [command])
    found = load_adapter(base, tmp_path / "peft").merge_and_unload().state_dict()
    expected_dir = tmp_path / "expected"
    write_tiny_hf(expected_dir, made.config, tensors={n: t.contiguous() for n, t in merged(made, SCALE).items()})
    expected, before = load(expected_dir).state_dict(), load(base).state_dict()
    assert found.keys() == expected.keys()
    elements = others = 0
    for key, tensor in expected.items():
        rounded = found[key].bfloat16().float()
        wrong = (rounded - tensor).abs() > tensor.abs() * 2**-7
        assert not wrong.any(), key
        elements += int((tensor != before[key]).sum())
        others += int((rounded != tensor).sum())
    assert elements > 10_000 and others < elements / 5_000


@pytest.mark.parametrize(
    ("kind", "name"), [("qwen3_vl", "mbridge"), ("qwen3_vl_moe", "mbridge"), slow("qwen3_moe", "megatron-lm")]
)
def test_the_way_back_gives_the_trainers_tensors(tmp_path: Path, kind: str, name: str) -> None:
    """q, k and v (gate and up) have one A: they come under one name again, in the trainer's order of rows."""
    made = make(kind, name)
    base = base_of(tmp_path / "base", made)
    mcore2hf(adapter_alone(tmp_path / "adapter", made, names.bridge(made)), tmp_path / "peft", adapter=True, base=base)
    report = hf2mcore(tmp_path / "peft", tmp_path / "mcore", adapter=True, base=base)
    assert not report.data["canonical"] and not report.data["zeros"]
    assert not differing(unstacked(load_dcp(tmp_path / "mcore/release")), names.bridge(made))
    # Keyed as the trainer has it, layers stacked.
    theirs = stacked(names.bridge(made), *stacks(made.name, made.sizes))
    assert shapes(tmp_path / "mcore/release") == {key: tuple(tensor.shape) for key, tensor in theirs.items()}


def test_parts_with_an_a_each_come_under_canonical_names(tmp_path: Path) -> None:
    """And a vision tower's qkv with three of them is one of three times the rank in peft."""
    made = make("qwen3_vl", "mbridge", lambda module: module.startswith("language_model."))
    base, parts = base_of(tmp_path / "base", made), canonical.parts_of(made)
    theirs = {shard.key: shard.local for shard in canonical.shards(made, parts, 0, 1)}
    mcore2hf(adapter_alone(tmp_path / "adapter", made, theirs), tmp_path / "peft", adapter=True, base=base)
    report = hf2mcore(tmp_path / "peft", tmp_path / "mcore", adapter=True, base=base)
    assert report.data["canonical"]
    assert not differing(unstacked(load_dcp(tmp_path / "mcore/release")), theirs)


def test_three_adapters_of_one_vision_qkv(tmp_path: Path) -> None:
    made = make("qwen3_vl", "mbridge", lambda module: module.startswith("vision_model."))
    base, parts = base_of(tmp_path / "base", made), canonical.parts_of(made)
    theirs = {shard.key: shard.local for shard in canonical.shards(made, parts, 0, 1)}
    mcore2hf(adapter_alone(tmp_path / "adapter", made, theirs), tmp_path / "peft", adapter=True, base=base)
    stated = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert set(stated["rank_pattern"].values()) == {3 * RANK} and set(stated["alpha_pattern"].values()) == {3 * ALPHA}
    found = load_adapter(base, tmp_path / "peft").merge_and_unload().state_dict()
    for name, tensor in canonical.merged(made, parts, SCALE).items():
        near = tensor.float()
        assert ((found[name].bfloat16().float() - near).abs() <= near.abs() * 2**-7).all(), name


MADE_BY_PEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "ranks": (
        "qwen3_vl",
        linear("q_proj", "k_proj", "v_proj", "qkv", "down_proj")
        | {"rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 3}},
    ),
    "some layers, two of three": (
        "qwen2_5_vl",
        linear("q_proj", "v_proj", "o_proj") | {"use_rslora": True, "layers_to_transform": [0, 1]},
    ),
    "experts": ("qwen3_vl_moe", linear("q_proj", "k_proj", "v_proj") | EXPERTS),
}


@pytest.mark.parametrize("case", MADE_BY_PEFT)
def test_what_peft_made_comes_back(tmp_path: Path, case: str) -> None:
    """Through Megatron's names, bit for bit, with every rank and scale; and the logits are those of the original."""
    model, fields = MADE_BY_PEFT[case]
    base = tmp_path / "base"
    write_tiny_hf(base, tiny_config(model), dtype="float32")
    made = save_adapter(base, tmp_path / "made", **fields)
    hf2mcore(tmp_path / "made", tmp_path / "mcore", adapter=True, base=base)
    mcore2hf(tmp_path / "mcore", tmp_path / "back", adapter=True)
    assert not differing(adapter_tensors(tmp_path / "back"), made)
    back, expected = load_adapter(base, tmp_path / "back"), load_adapter(base, tmp_path / "made")
    assert layers_of(back) == layers_of(expected) and not differing(state_of(back), made)
    assert torch.equal(logits_of(back, base), logits_of(expected, base))


def test_merging_here_is_merging_there(tmp_path: Path) -> None:
    """In float32 the order of a sum shows in single elements, by the last places of the largest ones."""
    base = tmp_path / "base"
    write_tiny_hf(base, tiny_config("qwen3_vl"), dtype="float32")
    save_adapter(base, tmp_path / "made", **linear("q_proj", "k_proj", "v_proj", "o_proj", "qkv"))
    hf2mcore(tmp_path / "made", tmp_path / "mcore", adapter=True, base=base)
    mcore2hf(tmp_path / "mcore", tmp_path / "merged", base=base)
    before, found = load(base).state_dict(), load(tmp_path / "merged").state_dict()
    model = load_adapter(base, tmp_path / "made")
    logits, expected = logits_of(model, base), model.merge_and_unload().state_dict()
    changed = others = 0
    for name, tensor in expected.items():
        largest = tensor.abs().max() + before[name].abs().max()
        assert ((found[name] - tensor).abs() <= largest * 2**-22).all(), name
        changed += int((tensor != before[name]).sum())
        others += int((found[name] != tensor).sum())
    assert changed > 50_000 and others < changed / 3
    torch.testing.assert_close(logits_of(load(tmp_path / "merged"), base), logits, atol=1e-4, rtol=1e-3)


def prepared(tmp_path: Path, model: str = "qwen3_vl", **fields: Any) -> tuple[Path, Path]:
    """A base and an adapter that peft made."""
    write_tiny_hf(tmp_path / "base", tiny_config(model), dtype="float32")
    save_adapter(tmp_path / "base", tmp_path / "made", **fields)
    return tmp_path / "base", tmp_path / "made"


def section(checkpoint: Path) -> dict[str, Any]:
    found = yaml.safe_load((checkpoint / "release/run_config.yaml").read_text())["peft"]
    assert isinstance(found, dict)
    return found


def test_run_config_says_which_class_makes_the_adapter(tmp_path: Path) -> None:
    base, made = prepared(tmp_path, **linear("q_proj", "k_proj", "v_proj", "o_proj"))
    hf2mcore(made, tmp_path / "apart", adapter=True, base=base)
    parts = [f"language_model.*.linear_{part}" for part in ("q", "k", "v", "proj")]
    assert section(tmp_path / "apart") == {
        "_target_": "megatron.bridge.peft.canonical_lora.CanonicalLoRA",
        "target_modules": parts,
        "alpha": ALPHA,
        "dropout": 0.0,
        "dim": RANK,
    }
    tensors = adapter_tensors(made)
    for name in [n for n in tensors if "lora_A" in n]:
        tensors[name] = tensors[name.replace("k_proj", "q_proj").replace("v_proj", "q_proj")].clone()
    save_file(tensors, made / "adapter_model.safetensors")
    hf2mcore(made, tmp_path / "whole", adapter=True, base=base)
    whole = section(tmp_path / "whole")
    assert whole["_target_"] == "megatron.bridge.peft.lora.LoRA"
    assert whole["target_modules"] == ["language_model.*.linear_qkv", "language_model.*.linear_proj"]


def test_experts_of_a_smaller_rank_are_normalised(tmp_path: Path) -> None:
    """dim over the experts per token, which are two here."""
    pattern = {"rank_pattern": {"experts.gate_up_proj": RANK // 2, "experts.down_proj": RANK // 2}}
    base, made = prepared(tmp_path, "qwen3_moe", **linear("o_proj") | EXPERTS | pattern)
    hf2mcore(made, tmp_path / "mcore", adapter=True, base=base, strict=True)
    found = section(tmp_path / "mcore")
    assert (found["dim"], found["normalize_moe_lora"], found["share_expert_adapters"]) == (RANK, True, False)
    assert found["target_modules"] == ["linear_proj", "linear_fc1", "linear_fc2"]


def test_what_megatron_has_no_names_for_is_refused(tmp_path: Path) -> None:
    base, made = prepared(tmp_path, "qwen3_5", **linear("q_proj", "in_proj_qkv"))
    for names_of, says in (("q_proj", "in_proj_z has none"), ("in_proj", "knows no gated attention")):
        tensors = {n: t for n, t in adapter_tensors(made).items() if names_of not in n}
        (tmp_path / names_of).mkdir()
        (tmp_path / names_of / "adapter_config.json").write_bytes((made / "adapter_config.json").read_bytes())
        save_file(tensors, tmp_path / names_of / "adapter_model.safetensors")
        with pytest.raises(UnsupportedError, match=says):
            hf2mcore(tmp_path / names_of, tmp_path / "mcore", adapter=True, base=base)
    assert not (tmp_path / "mcore").exists()


def test_no_change_is_lost_where_megatron_has_no_linear_layer(tmp_path: Path) -> None:
    """A shared expert's gate is a bare parameter there."""
    base, made = prepared(tmp_path, "qwen3_next", **linear("shared_expert_gate", "o_proj"))
    assert any("shared_expert_gate" in name for name in adapter_tensors(made))
    with pytest.raises(UnsupportedError, match=r"mlp\.shared_expert_gate, and are no linear layers in Megatron"):
        hf2mcore(made, tmp_path / "mcore", adapter=True, base=base)
    assert not (tmp_path / "mcore").exists()


def test_the_output_layers_own_weight_is_named(tmp_path: Path) -> None:
    """peft saves it along, unless it is told not to."""
    write_tiny_hf(tmp_path / "base", tiny_config("qwen3"), dtype="float32")
    model = adapted(tmp_path / "base", **linear("lm_head"))
    model.save_pretrained(tmp_path / "with", save_embedding_layers=True)
    with pytest.raises(UnsupportedError, match=r"lm_head.base_layer.weight is a weight of the model itself"):
        hf2mcore(tmp_path / "with", tmp_path / "mcore", adapter=True, base=tmp_path / "base")
    model.save_pretrained(tmp_path / "without", save_embedding_layers=False)
    hf2mcore(tmp_path / "without", tmp_path / "mcore", adapter=True, base=tmp_path / "base")
    tensors = adapter_tensors(tmp_path / "without").values()
    assert sorted(shapes(tmp_path / "mcore/release").values()) == sorted(tuple(t.shape) for t in tensors)


def test_no_pattern_means_more_modules_than_have_an_adapter(tmp_path: Path) -> None:
    """A multi-token-prediction head has a linear_proj, too."""
    base, made = prepared(tmp_path, "qwen3_5", **linear("o_proj"))
    hf2mcore(made, tmp_path / "mcore", adapter=True, base=base)
    assert section(tmp_path / "mcore")["target_modules"] == ["language_model.decoder.*.linear_proj"]


def test_what_transformers_has_no_module_for_is_left_out(tmp_path: Path) -> None:
    made = make(
        "qwen3_5", "mbridge", lambda module: module.endswith("linear_proj") and "language_model.decoder." in module
    )
    head = "language_model.mtp.layers.0.transformer_layer.self_attention.linear_proj.adapter"
    some = next(iter(made.a))
    more = {f"{head}.linear_in.weight": made.a[some], f"{head}.linear_out.weight": made.b[some]}
    base, source = base_of(tmp_path / "base", made), adapter_alone(tmp_path / "both", made, names.bridge(made) | more)
    with pytest.raises(UnsupportedError, match="1 matrices of the multi-token-prediction head"):
        mcore2hf(source, tmp_path / "peft", adapter=True, base=base, strict=True)
    report = mcore2hf(source, tmp_path / "peft", adapter=True, base=base)
    assert any("mtp.layers.0.self_attn.o_proj" in warning for warning in report.warnings)
    assert len(adapter_tensors(tmp_path / "peft")) == 2 * len(made.a)


def test_an_adapter_of_what_transformers_has_not(tmp_path: Path) -> None:
    made = make("qwen3_5", "mbridge", lambda module: ".mtp." in module and module.endswith("linear_proj"))
    base, source = base_of(tmp_path / "base", made), adapter_alone(tmp_path / "head", made, names.bridge(made))
    with pytest.raises(UnsupportedError, match="1 matrices of the multi-token-prediction head"):
        mcore2hf(source, tmp_path / "peft", adapter=True, base=base)


def test_pairs_that_are_zero_are_left_out(tmp_path: Path) -> None:
    """But not where only A is: B is a number of the training, and A may still become one."""
    made = make("qwen3", "megatron-lm", lambda module: module.endswith("linear_proj"))
    base, tensors = base_of(tmp_path / "base", made), names.bridge(made)
    first, second, *others = [name.removesuffix("linear_in.weight") for name in tensors if "linear_in" in name]
    for name in (f"{first}linear_in.weight", f"{second}linear_in.weight", f"{second}linear_out.weight"):
        tensors[name] = torch.zeros_like(tensors[name])
    report = mcore2hf(adapter_alone(tmp_path / "some", made, tensors), tmp_path / "peft", adapter=True, base=base)
    assert len(report.data["without_change"]) == 1
    assert len(adapter_tensors(tmp_path / "peft")) == 2 * (1 + len(others))
    for name in tensors:
        tensors[name] = torch.zeros_like(tensors[name])
    with pytest.raises(UnsupportedError, match="zero, so it changes nothing"):
        mcore2hf(adapter_alone(tmp_path / "none", made, tensors), tmp_path / "out", adapter=True, base=base)


def test_an_adapter_beside_its_base_is_exported_alone(tmp_path: Path) -> None:
    made = make("qwen3", "megatron-lm")
    base = base_of(tmp_path / "base", made)
    both = adapter_alone(tmp_path / "both", made, names.bridge(made) | made.base)
    mcore2hf(both, tmp_path / "from-both", adapter=True, reference=base)
    mcore2hf(adapter_alone(tmp_path / "alone", made, names.bridge(made)), tmp_path / "out", adapter=True, base=base)
    assert not differing(adapter_tensors(tmp_path / "from-both"), adapter_tensors(tmp_path / "out"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    base, made = prepared(tmp_path, **linear("q_proj", "v_proj") | {"alpha_pattern": {"v_proj": 3}})
    with pytest.raises(UnsupportedError, match=r"q_proj has alpha 12.0, .*v_proj has 3.0: Megatron-Bridge has one"):
        hf2mcore(made, tmp_path / "mcore", adapter=True, base=base)
    write_tiny_hf(tmp_path / "other", tiny_config("qwen3_vl", text={"hidden_size": 128}), dtype="float32")
    with pytest.raises(MismatchError, match=r"q_proj.lora_A.weight is \[4, 64\], and model and rank make \[4, 128\]"):
        hf2mcore(made, tmp_path / "mcore", adapter=True, base=tmp_path / "other")
    write_tiny_hf(tmp_path / "text", tiny_config("qwen3"), dtype="float32")
    with pytest.raises(MismatchError, match=r"is no module of this qwen3"):
        hf2mcore(made, tmp_path / "mcore", adapter=True, base=tmp_path / "text")
    with pytest.raises(NotACheckpoint, match=r"a PEFT adapter, no model\n.*--adapter"):
        hf2mcore(made, tmp_path / "mcore")
    with pytest.raises(NotACheckpoint, match=r"but a PEFT adapter\n.*--adapter"):
        mcore2hf(made, tmp_path / "hf")
    stated = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(stated | {"base_model_name_or_path": None}))
    with pytest.raises(ReferenceFault, match=r"which model it changes\n.*--base"):
        hf2mcore(made, tmp_path / "mcore", adapter=True)


def test_several_ranks_are_told_and_strictly_refused(tmp_path: Path) -> None:
    base, made = prepared(tmp_path, **linear("o_proj") | {"rank_pattern": {"layers.1.self_attn.o_proj": 2}})
    with pytest.raises(UnsupportedError, match=r"ranks \[2, 4\]"):
        hf2mcore(made, tmp_path / "mcore", adapter=True, base=base, strict=True)
    report = hf2mcore(made, tmp_path / "mcore", adapter=True, base=base)
    assert any("ranks [2, 4]" in warning for warning in report.warnings) and "dim" not in section(tmp_path / "mcore")


def test_only_an_adapter_is_replaced(tmp_path: Path) -> None:
    base, made = prepared(tmp_path, **linear("o_proj"))
    hf2mcore(made, tmp_path / "mcore", adapter=True, base=base)
    for target, overwrite, fine in (
        ("made", False, False),
        ("made", True, False),
        ("out", False, True),
        ("out", True, True),
    ):
        if target == "made":
            (made / "notes.txt").write_text("mine")
        if fine:
            mcore2hf(tmp_path / "mcore", tmp_path / target, adapter=True, overwrite=overwrite)
        else:
            with pytest.raises(TargetError):
                mcore2hf(tmp_path / "mcore", tmp_path / target, adapter=True, overwrite=overwrite)
    with pytest.raises(TargetError, match="not one PEFT adapter"):
        mcore2hf(tmp_path / "mcore", base, adapter=True, overwrite=True)
    assert read_hf(base)


def test_an_export_names_its_base_where_that_is_known(tmp_path: Path) -> None:
    base, made = prepared(tmp_path, **linear("o_proj"))
    hf2mcore(made, tmp_path / "mcore", adapter=True)  # the base is the one that peft noted
    for number, (options, named) in enumerate([({}, None), ({"base": base}, str(base.absolute()))]):
        mcore2hf(tmp_path / "mcore", tmp_path / str(number), adapter=True, **options)  # type: ignore[arg-type]
        stated = json.loads((tmp_path / str(number) / "adapter_config.json").read_text())
        assert stated["base_model_name_or_path"] == named


def test_a_checkpoint_without_an_adapter_has_none_to_write(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf", tiny_config("qwen3"))
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    with pytest.raises(MismatchError, match="holds no adapter"):
        mcore2hf(tmp_path / "mcore", tmp_path / "out", adapter=True)


@pytest.mark.parametrize("ranks", [1, 2])
def test_megatron_core_loads_it_at_any_size(tmp_path: Path, ranks: int) -> None:
    """Every rank gets what its module has at that size, gate and up through megatron-core's own factory."""
    made = make("qwen3", "megatron-lm")
    base = base_of(tmp_path / "base", made)
    mcore2hf(adapter_alone(tmp_path / "adapter", made, names.bridge(made)), tmp_path / "peft", adapter=True, base=base)
    hf2mcore(tmp_path / "peft", tmp_path / "mcore", adapter=True, base=base, per_layer=True)
    shards = [saving.of_bridge(made, rank, ranks) for rank in range(ranks)]
    loaded = loading.load(tmp_path / "mcore/release", shards)
    for mine, found in zip(shards, loaded, strict=True):
        assert all(torch.equal(shard.local, tensor) for shard, tensor in zip(mine, found, strict=True))
        assert len(mine) == 2 * len(made.a)


def test_what_is_warned_of_is_so(tmp_path: Path) -> None:
    """At size 2 the trainer's own factory takes half of gate's rows for others; at 1 all is as it is."""
    made = make("qwen3", "megatron-lm", lambda module: module.endswith("linear_fc1"))
    base, parts = base_of(tmp_path / "base", made), canonical.parts_of(made)
    theirs = {shard.key: shard.local for shard in canonical.shards(made, parts, 0, 1)}
    mcore2hf(adapter_alone(tmp_path / "adapter", made, theirs), tmp_path / "peft", adapter=True, base=base)
    report = hf2mcore(tmp_path / "peft", tmp_path / "mcore", adapter=True, base=base, per_layer=True)
    assert any("load it at 1" in warning for warning in report.warnings)
    for size, fine in ((1, True), (2, False)):
        shards = [canonical.shards(made, parts, rank, size) for rank in range(size)]
        loaded = loading.load(tmp_path / "mcore/release", shards)
        pairs = [pair for mine, found in zip(shards, loaded, strict=True) for pair in zip(mine, found, strict=True)]
        assert all(torch.equal(s.local, t) for s, t in pairs if "linear_in" in s.key)
        assert all(torch.equal(s.local, t) for s, t in pairs) == fine
