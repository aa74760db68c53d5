"""peft merges the same adapter into the same model, in float32 and by a library's matrix product: a second witness."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora import names
from lora.making import make
from lora.saved import base, written
from references import read_hf

from vlconv.converters import mcore2hf

RANK, ALPHA = 24, 7


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("qwen3", "megatron-lm"), ("qwen3_vl", "mbridge")])
def test_merge_and_unload(tmp_path: Path, kind: str, name: str) -> None:
    """Of the sums in float32 nearly all are the same to the bit, and none is further than the order of a sum explains;
    rounded to bfloat16 some lie a step apart.
    """
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    made = make(kind, name, rank=RANK)
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=ALPHA, dtype="float32")
    found = read_hf(tmp_path / "out")
    kinds = {"qwen3": transformers.AutoModelForCausalLM, "qwen3_vl": transformers.AutoModelForImageTextToText}
    model = kinds[kind].from_pretrained(tmp_path / "base", dtype=torch.float32)
    targets = [weight.removesuffix(".weight") for weight in made.inside]
    with_adapter = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    for module in targets:
        layer = with_adapter.get_submodule(f"base_model.model.{module}")
        layer.lora_A["default"].weight.data = made.a[made.inside[f"{module}.weight"]].float()
        layer.lora_B["default"].weight.data = made.hf_b[f"{module}.weight"].float()
    theirs = with_adapter.merge_and_unload().state_dict()
    apart = steps = elements = 0
    for weight in made.inside:
        ours, other = found[weight], theirs[weight]
        largest = (ours - other).abs().max()
        assert largest <= 4 * torch.finfo(torch.float32).eps * ours.abs().max()
        apart, elements = apart + int((ours != other).sum()), elements + ours.numel()
        rounded = (t.bfloat16().view(torch.int16).int() for t in (ours, other))
        steps += int((next(rounded) - next(rounded)).abs().sum())
    for weight in found.keys() - made.inside.keys():
        assert torch.equal(found[weight], theirs[weight])
    assert elements > 100_000 and apart < elements // 2 and steps <= elements // 5000
    print(f"{apart} of {elements} sums differ in float32, {steps} in bfloat16")
