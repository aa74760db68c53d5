"""--fp8-like: weights in an FP8 release's own form, to the bit; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fp8 import EVERY_FORM, FORMS, FP8, Tensors, fine_grained, plain_model, quantised_model, run, tiny_fp8, write_fp8
from hostile.files import header
from references import differing, read_hf
from refusing import edit_config, refused
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, OptionError, hf2mcore, mcore2hf
from vlconv.converters.errors import MismatchError, ReferenceFault

STATED = fine_grained((32, 16), ["lm_head", "model.visual"])
HEAD = {"mtp_num_hidden_layers": 1}
Q = "model.language_model.layers.1.self_attn.q_proj.weight"


def bits(tensors: Tensors) -> Tensors:
    """FP8 tensors as bytes, which torch compares."""
    return {name: t.view(torch.uint8) if t.dtype.itemsize == 1 else t for name, t in tensors.items()}


@pytest.mark.parametrize("form", EVERY_FORM)
def test_there_and_back_gives_the_bytes_of_the_original(tmp_path: Path, form: str) -> None:
    """By the real command: the whole file of weights, and every word of config.json."""
    kind, stated, scale, apart = FORMS[form]
    tensors = tiny_fp8(tmp_path / "fp8", kind, stated, scale, apart=apart)
    run("hf2mcore", tmp_path / "fp8", tmp_path / "mcore")
    told = json.loads(
        run("mcore2hf", tmp_path / "mcore", tmp_path / "hf", "--fp8-like", tmp_path / "fp8", "--json").stdout
    )
    assert told["quantised"]["scales"] == [str(scale).removeprefix("torch.")]
    found = read_hf(tmp_path / "hf")
    if scale == torch.float8_e8m0fnu:  # a scale may be half of what it was, and the numbers twice: the same
        assert differing(plain_model(found, stated, torch.float32), plain_model(tensors, stated, torch.float32)) == []
    else:
        assert differing(bits(found), bits(tensors)) == []
        assert (tmp_path / "hf/model.safetensors").read_bytes() == (tmp_path / "fp8/model.safetensors").read_bytes()
    config = json.loads((tmp_path / "fp8/config.json").read_text())
    assert json.loads((tmp_path / "hf/config.json").read_text()) == config | {"dtype": "bfloat16"}
    run("verify", tmp_path / "fp8", tmp_path / "hf")
    run("verify", tmp_path / "mcore", tmp_path / "hf")


@pytest.mark.parametrize("scale", [torch.float32, torch.bfloat16])
def test_other_weights_by_the_rule(tmp_path: Path, scale: torch.dtype) -> None:
    """The reference gives its form, not its numbers; a float32 checkpoint is quantised from float32."""
    tiny_fp8(tmp_path / "fp8", "qwen3_5", STATED, scale, text=HEAD)
    config = tiny_config("qwen3_5", text=HEAD)
    tensors = write_tiny_hf(tmp_path / "hf", config, seed=4, delta_dtype="bfloat16")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    asked = Mcore2HfOptions(fp8_like=tmp_path / "fp8", max_shard_size="200kB")
    report = mcore2hf(tmp_path / "mcore", tmp_path / "out", asked)
    want = quantised_model(tensors, STATED, scale)
    assert differing(bits(read_hf(tmp_path / "out")), bits(want)) == []
    assert report.data["parameters"] == sum(t.numel() for t in tensors.values())
    wide = write_tiny_hf(tmp_path / "wide_hf", config, seed=5, dtype="float32")
    hf2mcore(tmp_path / "wide_hf", tmp_path / "wide")
    mcore2hf(tmp_path / "wide", tmp_path / "out32", asked)
    want = {
        name: t.bfloat16() if t.dtype == torch.float32 and "_scale_inv" not in name else t
        for name, t in quantised_model(wide, STATED, scale).items()
    }
    assert differing(bits(read_hf(tmp_path / "out32")), bits(want)) == []
    assert json.loads((tmp_path / "out32/config.json").read_text())["dtype"] == "bfloat16"


def test_what_stays_plain_has_the_dtype_of_the_form(tmp_path: Path) -> None:
    """Not first the one of the reference, which is narrower: a norm in float32 keeps all its bits."""
    config = tiny_config("qwen3_5")
    fine = write_tiny_hf(tmp_path / "fine", config, delta_dtype="float32", fine=True)
    write_tiny_hf(tmp_path / "reference", config, delta_dtype="bfloat16")
    write_fp8(tmp_path / "fp8", config, quantised_model(fine, STATED), STATED)
    hf2mcore(tmp_path / "fine", tmp_path / "mcore")
    asked = Mcore2HfOptions(fp8_like=tmp_path / "fp8", reference=tmp_path / "reference")
    mcore2hf(tmp_path / "mcore", tmp_path / "out", asked)
    found = read_hf(tmp_path / "out")
    wide = {name: t for name, t in fine.items() if t.dtype == torch.float32 and name.endswith("A_log")}
    assert wide and differing({name: found[name] for name in wide}, wide) == []


def test_threads_and_memory_change_nothing(tmp_path: Path) -> None:
    tiny_fp8(tmp_path / "fp8", "qwen3_vl_moe", fine_grained((48, 40), ["lm_head", "model.visual"]))
    write_tiny_hf(tmp_path / "hf", tiny_config("qwen3_vl_moe"), seed=2)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    for name, options in (("one", {"threads": 1}), ("three", {"threads": 3, "memory": "100MB"})):
        mcore2hf(tmp_path / "mcore", tmp_path / name, Mcore2HfOptions(fp8_like=tmp_path / "fp8", **options))
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "three/model.safetensors").read_bytes()


def test_a_head_that_is_dropped_or_carried(tmp_path: Path) -> None:
    fp8 = tiny_fp8(tmp_path / "fp8", "qwen3_5", STATED, text=HEAD, seed=5)
    tensors = write_tiny_hf(tmp_path / "hf", tiny_config("qwen3_5", text=HEAD), delta_dtype="bfloat16")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(mtp="drop"))
    mcore2hf(tmp_path / "mcore", tmp_path / "dropped", Mcore2HfOptions(fp8_like=tmp_path / "fp8", mtp="drop"))
    rest = {name: t for name, t in quantised_model(tensors, STATED).items() if not name.startswith("mtp.")}
    assert differing(bits(read_hf(tmp_path / "dropped")), bits(rest)) == []
    asked = Mcore2HfOptions(fp8_like=tmp_path / "fp8", reference=tmp_path / "fp8", mtp="carry")
    mcore2hf(tmp_path / "mcore", tmp_path / "carried", asked)
    head = {name: t for name, t in fp8.items() if name.startswith("mtp.")}
    assert differing(bits(read_hf(tmp_path / "carried")), bits(rest | head)) == []


def test_whole_models_only(tmp_path: Path) -> None:
    """Where the reference is of another model, or says one thing and holds another."""
    tensors = dict(tiny_fp8(tmp_path / "fp8"))
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    asked = Mcore2HfOptions(fp8_like=tmp_path / "fp8")

    def no(change: Callable[[Tensors], Any], *says: str) -> None:
        changed = dict(tensors)
        change(changed)
        write_weights(tmp_path / "fp8", changed)
        refused(mcore2hf, tmp_path / "mcore", tmp_path / "out", asked, fault=MismatchError, says=says)

    scale = f"{Q}_scale_inv"
    no(lambda t: (t.pop(Q), t.pop(scale)), Q, "1 not expected")
    no(lambda t: t.update(more=torch.ones(2)), "1 missing", "more")
    no(lambda t: t.pop(scale), Q, "are missing")
    no(lambda t: (t.pop(scale), t.update({Q: t[Q].to(torch.bfloat16)})), Q, "is bfloat16")
    rows = {Q: tensors[Q][:96].contiguous(), scale: tensors[scale][:3].contiguous()}
    no(lambda t: t.update(rows), Q, "[96, 64]", "[128, 64]")


@pytest.mark.parametrize("shape", [None, "text", [-1, 4]])
def test_of_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    """config.json and the headers are all that is fetched; headers that cannot be are refused."""
    import huggingface_hub

    snapshot = tmp_path / "hub/models--Some--Model-FP8/snapshots/0123abc"
    tiny_fp8(snapshot)
    entries, _ = header(snapshot / "model.safetensors")
    entries.pop("__metadata__")
    (snapshot / "model.safetensors").rename(tmp_path / "elsewhere")
    if shape is not None:
        entries[Q]["shape"] = shape

    class Api:
        def model_info(self, *_: Any, **__: Any) -> Any:
            raise ConnectionError("no network")

        def get_safetensors_metadata(self, hub_id: str, *, revision: str) -> Any:
            assert (hub_id, revision) == ("Some/Model-FP8", "0123abc")
            tensors = {name: SimpleNamespace(dtype=e["dtype"], shape=e["shape"]) for name, e in entries.items()}
            return SimpleNamespace(files_metadata={"model.safetensors": SimpleNamespace(tensors=tensors)})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    tensors = write_tiny_hf(tmp_path / "hf", seed=6)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    asked = Mcore2HfOptions(fp8_like="Some/Model-FP8")
    if shape is not None:
        says = "the headers of the weights of Some/Model-FP8 could not be had"
        refused(mcore2hf, tmp_path / "mcore", tmp_path / "out", asked, fault=ReferenceFault, says=says)
        return
    mcore2hf(tmp_path / "mcore", tmp_path / "out", asked)
    assert differing(bits(read_hf(tmp_path / "out")), bits(quantised_model(tensors, STATED))) == []


def test_what_is_no_fp8_reference(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")

    def no(fault: Any, says: str) -> None:
        asked = Mcore2HfOptions(fp8_like=tmp_path / "fp8")
        refused(mcore2hf, tmp_path / "mcore", tmp_path / "out", asked, fault=fault, says=says)

    no(ReferenceFault, "does not exist")
    write_tiny_hf(tmp_path / "fp8")
    no(ReferenceFault, "is no FP8 model")
    edit_config(tmp_path / "fp8", lambda c: c.update(quantization_config=STATED))
    no(MismatchError, "none of its tensors is float8_e4m3fn")
    (tmp_path / "fp8/model.safetensors").unlink()
    no(ReferenceFault, "has not all of its safetensors weights")
    tiny_fp8(tmp_path / "other", "qwen3_vl_moe")
    asked = Mcore2HfOptions(fp8_like=tmp_path / "other")
    says = ("is a qwen3_vl_moe", "qwen3_vl")
    refused(mcore2hf, tmp_path / "mcore", tmp_path / "out", asked, fault=MismatchError, says=says)


def test_weights_that_fp8_has_no_place_for(tmp_path: Path) -> None:
    tiny_fp8(tmp_path / "fp8")
    tensors = write_tiny_hf(tmp_path / "hf")
    tensors[Q][3, 3] = float("inf")
    write_weights(tmp_path / "hf", tensors)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    asked = Mcore2HfOptions(fp8_like=tmp_path / "fp8")
    refused(mcore2hf, tmp_path / "mcore", tmp_path / "out", asked, fault=MismatchError, says=f"{Q}: holds numbers")


@pytest.mark.parametrize("also", [{"dtype": "bfloat16"}, {"experts": "per-expert"}, {"hf_names": "new"}])
def test_options_that_say_it_otherwise(also: dict[str, Any]) -> None:
    (name,) = also
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} says what --fp8-like takes"):
        Mcore2HfOptions(fp8_like="x", **also)


def test_read_by_whoever_reads_the_original(tmp_path: Path) -> None:
    """Dequantised by the published formula it is the original, but for the one rounding."""
    tiny_fp8(tmp_path / "fp8")
    tensors = write_tiny_hf(tmp_path / "hf", seed=8)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    mcore2hf(tmp_path / "mcore", tmp_path / "out", Mcore2HfOptions(fp8_like=tmp_path / "fp8"))
    found = read_hf(tmp_path / "out")
    assert sum(t.dtype == FP8 for t in found.values()) == 28
    for name, number in plain_model(found, STATED, torch.float32).items():
        assert torch.allclose(number.float(), tensors[name].float(), rtol=2**-4, atol=2e-4), name
