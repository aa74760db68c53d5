"""A Gated DeltaNet's output norms, the one thing that is computed: what is told of them, and when nothing rounds."""

from __future__ import annotations

import json
from pathlib import Path

import dcp
import pytest
import torch
from hybrids import Model, Tensors, model, saved
from references import differing, read_hf
from tiny import write_weights

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

SAMPLED = 2

CASES = [("qwen3_5", "mbridge-qwen3_5"), ("qwen3_5_moe", "mbridge"), ("qwen3_next", "megatron-lm")]
NORMS, WIDTH = 3, 16  # of four layers three have one, of 16 numbers
ELEMENTS = NORMS * WIDTH


def held(seed: int = 5) -> list[torch.Tensor]:
    """What a trained checkpoint holds of them, less one: about 0, of numbers that are not all exact plus one."""
    generator = torch.Generator().manual_seed(seed)
    return [(0.1 * torch.randn(WIDTH, generator=generator)).bfloat16() for _ in range(NORMS)]


def norms(tensors: Tensors, end: str) -> list[str]:
    found = sorted(n for n in tensors if n.endswith(end))
    assert len(found) == NORMS
    return found


def trained(root: Path, name: str, of: Model) -> Path:
    """A torch_dist checkpoint with those norms."""

    def edit(tensors: Tensors) -> Tensors:
        return tensors | dict(zip(norms(tensors, ".out_norm.weight"), held(), strict=True))

    return saved(root, name, of, edit=edit)


def expected(of: Model, dtype: torch.dtype) -> Tensors:
    names = norms(of.tensors, ".linear_attn.norm.weight")
    return of.tensors | {n: (t.double() + 1).to(dtype) for n, t in zip(names, held(), strict=True)}


def lost(dtype: torch.dtype) -> int:
    """The elements from which the checkpoint's cannot be told again."""
    return sum(int(((t.double() + 1).to(dtype).double() - 1 != t.double()).sum()) for t in held())


def test_bfloat16_loses_most_and_float32_nothing() -> None:
    assert lost(torch.bfloat16) > 0.8 * ELEMENTS and lost(torch.float32) == 0


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_told_and_counted(tmp_path: Path, kind: str, name: str) -> None:
    of = model(tmp_path / "reference", kind, promised=None if kind == "qwen3_next" else 1)
    source = trained(tmp_path / "saved", name, of)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
    assert differing(read_hf(tmp_path / "hf"), expected(of, torch.bfloat16)) == []
    count = lost(torch.bfloat16)
    assert report.told["computed"].startswith(f"{NORMS} tensors are the source's plus one (")
    assert report.told["rounded"].startswith(f"{count} of {ELEMENTS} elements in {NORMS} computed tensors were rounded")
    (computed,) = report.data["computed"]
    assert (computed["added"], len(computed["tensors"])) == (1.0, NORMS)
    assert (report.data["rounded"]["rounded"], report.data["rounded"]["elements"]) == (count, ELEMENTS)
    manifest = json.loads((tmp_path / "hf/vlconv.json").read_text())
    assert manifest["changes"]["rounded"]["rounded"] == count


@pytest.mark.parametrize(("kind", "name"), CASES[:2])
def test_nothing_rounds_where_the_reference_has_float32(tmp_path: Path, kind: str, name: str) -> None:
    """As Qwen3.5's weights have it; the decay is widened with it, and all else stays."""
    of = model(tmp_path / "reference", kind, delta_dtype="float32")
    source = trained(tmp_path / "saved", name, of)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
    assert differing(read_hf(tmp_path / "hf"), expected(of, torch.float32)) == []
    heads = 8  # of the decay, which is not computed and yet of another dtype
    assert (report.data["rounded"]["rounded"], report.data["rounded"]["elements"]) == (0, ELEMENTS + NORMS * heads)
    assert len(report.data["computed"][0]["tensors"]) == NORMS
    assert report.told["reference_dtypes"].startswith(f"as the reference's weights have them: {2 * NORMS} bfloat16 to ")
    report = verify(source, tmp_path / "hf", VerifyOptions(references=(of.directory,)))
    assert (report.status, report.differences) == ("same", [])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("kind", "name"), CASES[:1])
def test_compared_by_rule(tmp_path: Path, kind: str, name: str, wide: bool) -> None:
    of = model(tmp_path / "reference", kind, delta_dtype="float32" if wide else "bfloat16")
    source = trained(tmp_path / "saved", name, of)
    mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
    options = VerifyOptions(references=(of.directory,))
    names = norms(of.tensors, ".linear_attn.norm.weight")
    for pair in ((source, tmp_path / "hf"), (tmp_path / "hf", source)):
        report = verify(*pair, options)
        assert (report.status, report.differences) == ("same", [])
        assert sorted(report.data["by_rule"]) == names
    wrong = {n: t.clone() for n, t in expected(of, torch.float32 if wide else torch.bfloat16).items()}
    wrong[names[1]].view(torch.int32 if wide else torch.int16)[9] ^= 1 << (17 if wide else 0)
    write_weights(tmp_path / "hf", wrong)
    report = verify(source, tmp_path / "hf", options)
    assert [(d.tensor, d.count, d.first) for d in report.differences] == [(names[1], 1, (9,))]
    assert (report.status, sorted(report.data["by_rule"])) == ("different", [names[0], names[2]])


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("kind", "name"), CASES[1:])
def test_a_round_trip(tmp_path: Path, kind: str, name: str, on_disk: bool) -> None:
    of = model(tmp_path / "reference", kind, promised=None if kind == "qwen3_next" else 1)
    source = trained(tmp_path / "saved", name, of)
    there_and_back = VerifyOptions(references=(of.directory,), on_disk=tmp_path if on_disk else None)
    report = verify(source, None, there_and_back)
    assert (report.status, report.differences) == ("same", [])
    changed = sum(int((((t.float() + 1).bfloat16().float() - 1).bfloat16() != t).sum()) for t in held())
    assert (report.data["rounded"]["rounded"], report.data["rounded"]["elements"]) == (changed, ELEMENTS)
    report = verify(of.directory)
    assert (report.status, report.data["rounded"]["rounded"]) == ("same", 0)


@pytest.mark.parametrize(("kind", "name"), CASES[:2])
def test_to_megatron_it_is_rounded_once(tmp_path: Path, kind: str, name: str) -> None:
    """From float32 numbers that bfloat16 does not hold: as the trainers' own converters do it."""
    of = model(tmp_path / "hf", kind, delta_dtype="float32")
    (norm, *_), generator = norms(of.tensors, ".linear_attn.norm.weight"), torch.Generator().manual_seed(1)
    fine = of.tensors | {norm: 1 + 0.1 * torch.randn(WIDTH, generator=generator)}
    write_weights(of.directory, fine)
    hf2mcore(of.directory, tmp_path / "mcore", Hf2McoreOptions(dtype="bfloat16", as_layout=name))
    found = dcp.unstacked(dcp.load(tmp_path / "mcore/release"))
    ours = found[norms(found, ".out_norm.weight")[0]]
    assert torch.equal(ours, (fine[norm].double() - 1).bfloat16())
    assert not torch.equal(ours, (fine[norm].bfloat16().double() - 1).bfloat16())


def test_names_that_hold_the_value_itself_compute_nothing(tmp_path: Path) -> None:
    """ms-swift's; and megatron-core's again hold the very bits."""
    of = model(tmp_path / "reference", "qwen3_5", weights=False)
    swift = saved(tmp_path / "swift", "ms-swift-gdn", of)
    report = mcore2hf(swift, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
    assert not {"computed", "rounded"} & report.told.keys()
    source = trained(tmp_path / "core", "mbridge-qwen3_5", of)
    report = mcore2mcore(source, tmp_path / "mcore", Mcore2McoreOptions(reference=of.directory, as_layout="mbridge"))
    assert not {"computed", "rounded"} & report.told.keys()
    found = dcp.unstacked(dcp.load(tmp_path / "mcore/release"))
    assert all(torch.equal(found[n], t) for n, t in zip(norms(found, ".out_norm.weight"), held(), strict=True))


def test_bits_that_the_checkpoint_has_no_place_for_are_told(tmp_path: Path) -> None:
    """Of float32 a checkpoint in bfloat16 may be what the rule makes of either number; how many, is told."""
    of = model(tmp_path / "reference", "qwen3_5", delta_dtype="float32")
    source = trained(tmp_path / "saved", "mbridge-qwen3_5", of)
    mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
    options = VerifyOptions(references=(of.directory,))
    assert verify(source, tmp_path / "hf", options).data["rounded"]["rounded"] == 0
    other = {n: t.clone() for n, t in expected(of, torch.float32).items()}
    name = norms(other, ".linear_attn.norm.weight")[1]
    other[name].view(torch.int32)[9] ^= 1
    write_weights(tmp_path / "hf", other)
    report = verify(source, tmp_path / "hf", options)
    assert (report.status, report.data["rounded"]["rounded"], report.data["rounded"]["tensors"][name]) == ("same", 1, 1)
