"""FP8 models as a source: every form there and back by the real command, held against what FP8 readers make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fp8 import EVERY_FORM, FORMS, SMALL, Tensors, document, plain_model, run, tiny_fp8
from references import differing, read_hf
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, MismatchError, hf2mcore, inspect, mcore2hf


def as_float(tensors: Tensors) -> Tensors:
    return {name: tensor.float() for name, tensor in tensors.items()}


@pytest.mark.parametrize("form", EVERY_FORM)
def test_every_form(tmp_path: Path, form: str) -> None:
    """As bfloat16 once rounded; as float32 without a detour; back to the same names; verified."""
    kind, stated, scale, apart = FORMS[form]
    tensors = tiny_fp8(tmp_path / "fp8", kind, stated, scale, apart=apart)
    experts = ("--experts", "per-expert") if apart else ()
    told = document("hf2mcore", tmp_path / "fp8", tmp_path / "mcore")
    assert told["dequantised"]["dtype"] == "bfloat16"
    assert len(told["dequantised"]["tensors"]) == sum(t.dtype == torch.float8_e4m3fn for t in tensors.values())
    run("mcore2hf", tmp_path / "mcore", tmp_path / "hf", *experts)
    want = plain_model(tensors, stated)
    assert differing(read_hf(tmp_path / "hf"), want) == []
    config = json.loads((tmp_path / "fp8/config.json").read_text())
    del config["quantization_config"]
    assert json.loads((tmp_path / "mcore/huggingface/config.json").read_text()) == config
    assert json.loads((tmp_path / "hf/config.json").read_text()) == config | {"dtype": "bfloat16"}
    assert document("verify", tmp_path / "fp8", tmp_path / "mcore")["status"] == "same"
    run("hf2mcore", tmp_path / "fp8", tmp_path / "wide", "--dtype", "float32")
    run("mcore2hf", tmp_path / "wide", tmp_path / "wide_hf", *experts)
    exact = as_float(plain_model(tensors, stated, torch.float32))
    assert differing(read_hf(tmp_path / "wide_hf"), exact) == []


def test_what_is_told(tmp_path: Path) -> None:
    tensors = tiny_fp8(tmp_path / "fp8")
    told = document("hf2mcore", tmp_path / "fp8", tmp_path / "mcore")
    names = [name for name, t in tensors.items() if t.dtype == torch.float8_e4m3fn]
    assert sorted(told["dequantised"]["tensors"]) == sorted(names)
    assert told["dequantised"]["scales"] == ["bfloat16"]
    exact = plain_model(tensors, SMALL, torch.float64)
    rounded = plain_model(tensors, SMALL)
    count = {name: int((exact[name] != rounded[name].double()).sum()) for name in names}
    assert told["rounded"]["tensors"] == count
    text = run("hf2mcore", tmp_path / "fp8", tmp_path / "again", "--dry-run").output
    assert f"{len(names)} tensors, FP8 (e4m3) in blocks of 32 x 16, become bfloat16" in text
    assert "28 tensors in FP8 (e4m3) in blocks of 32 x 16 with bfloat16 scales" in inspect(tmp_path / "fp8").form


def test_rounded_once_to_float16(tmp_path: Path) -> None:
    """From the exact product, not by way of bfloat16."""
    tensors = tiny_fp8(tmp_path / "fp8")
    hf2mcore(tmp_path / "fp8", tmp_path / "mcore", Hf2McoreOptions(dtype="float16"))
    mcore2hf(tmp_path / "mcore", tmp_path / "hf")
    want = {name: t.half() for name, t in plain_model(tensors, SMALL, torch.float64).items()}
    assert differing(read_hf(tmp_path / "hf"), want) == []


def test_threads_and_memory_change_nothing(tmp_path: Path) -> None:
    tiny_fp8(tmp_path / "fp8", "qwen3_vl_moe")
    hf2mcore(tmp_path / "fp8", tmp_path / "one", Hf2McoreOptions(threads=1))
    hf2mcore(tmp_path / "fp8", tmp_path / "three", Hf2McoreOptions(threads=3, memory="100MB"))
    files = [f.relative_to(tmp_path / "one") for f in (tmp_path / "one").rglob("*.distcp")]
    assert files and all((tmp_path / "one" / f).read_bytes() == (tmp_path / "three" / f).read_bytes() for f in files)


def test_as_a_reference(tmp_path: Path) -> None:
    """Its config serves without quantization_config, and that is said; its plain tensors can be carried."""
    config = tiny_config("qwen3_5", text={"mtp_num_hidden_layers": 1})
    tensors = write_tiny_hf(tmp_path / "hf", config, delta_dtype="bfloat16")
    fp8 = tiny_fp8(tmp_path / "fp8", "qwen3_5", text={"mtp_num_hidden_layers": 1}, seed=5)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    report = mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(reference=tmp_path / "fp8"))
    assert "quantization_config stays behind" in report.told["config_from"]
    assert differing(read_hf(tmp_path / "back"), tensors) == []
    assert "quantization_config" not in json.loads((tmp_path / "back/config.json").read_text())
    hf2mcore(tmp_path / "hf", tmp_path / "headless", Hf2McoreOptions(mtp="drop"))
    asked = Mcore2HfOptions(reference=tmp_path / "fp8", mtp="carry")
    report = mcore2hf(tmp_path / "headless", tmp_path / "carried", asked)
    head = {name: t for name, t in plain_model(fp8, SMALL).items() if name.startswith("mtp.")}
    assert differing(read_hf(tmp_path / "carried"), tensors | head) == []
    count = sum(t.dtype == torch.float8_e4m3fn for name, t in fp8.items() if name.startswith("mtp."))
    assert f"but for {count} that are FP8 there and become bfloat16" in report.told["carried"] and count == 7


def test_scales_beside_plain_tensors_are_not_left_behind(tmp_path: Path) -> None:
    """FP8 numbers that somebody has saved as bfloat16 are no weights without their scales."""
    config = tiny_config("qwen3_5", text={"mtp_num_hidden_layers": 1})
    write_tiny_hf(tmp_path / "hf", config, delta_dtype="bfloat16")
    fp8 = tiny_fp8(tmp_path / "fp8", "qwen3_5", text={"mtp_num_hidden_layers": 1})
    mixed = {n: t.bfloat16() if n.startswith("mtp.") and not n.endswith("_inv") else t for n, t in fp8.items()}
    write_weights(tmp_path / "fp8", mixed)
    hf2mcore(tmp_path / "hf", tmp_path / "headless", Hf2McoreOptions(mtp="drop"))
    with pytest.raises(MismatchError, match="none of its tensors is float8_e4m3fn"):
        mcore2hf(tmp_path / "headless", tmp_path / "out", Mcore2HfOptions(reference=tmp_path / "fp8", mtp="carry"))
