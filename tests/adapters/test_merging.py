"""Adapters merged: what torch computes by the rule is what is written, bit for bit, however it is saved and run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lora import names
from lora.making import RANK, make, merged
from lora.saved import base, with_reference, written
from references import differing, read_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, MismatchError, hf2mcore, mcore2hf, workers
from vlconv.converters.adapters import merged as merging
from vlconv.converters.workers import Workers

SAMPLED = 2

ALPHA, SCALE = 6, 6 / RANK

CASES = [
    ("qwen3", "megatron-lm", "bridge"),
    ("qwen3_moe", "megatron-lm", "bridge"),
    ("qwen3_moe", "megatron-lm", "swift"),
    ("qwen3_next", "megatron-lm", "bridge"),
    ("qwen3_vl", "mbridge", "bridge"),
    ("qwen3_vl", "ms-swift", "swift"),
    ("qwen3_vl_moe", "mbridge", "bridge"),
    ("qwen3_vl_moe", "ms-swift", "swift"),
    ("qwen3_5", "mbridge", "bridge"),
    ("qwen3_5", "ms-swift-gdn", "swift"),
    ("qwen3_5_moe", "mbridge", "bridge"),
]


@pytest.mark.parametrize(("kind", "name", "family"), CASES)
def test_an_adapter_alone_goes_into_its_base(tmp_path: Path, kind: str, name: str, family: str) -> None:
    made = make(kind, name)
    adapter = written(tmp_path / "adapter", made, getattr(names, family)(made))
    report = mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=ALPHA)
    expected = merged(made, SCALE)
    assert differing(read_hf(tmp_path / "out"), expected) == []
    assert report.data["adapter"]["ranks"] == [RANK] and report.data["adapter"]["alphas"] == [ALPHA]
    changed = {n: int((expected[n] != made.hf[n]).sum()) for n in made.inside}
    assert report.data["merged"]["tensors"] == changed and sum(changed.values()) > 10_000
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == kind


@pytest.mark.parametrize(("kind", "name", "family"), CASES)
def test_an_adapter_beside_its_base_goes_into_it(tmp_path: Path, kind: str, name: str, family: str) -> None:
    made = make(kind, name)
    tensors = names.swift(made) | names.wrapped(made, "base_layer")
    if family == "bridge":
        tensors = names.bridge(made) | made.base
    checkpoint = with_reference(written(tmp_path / "both", made, tensors), made)
    mcore2hf(checkpoint, tmp_path / "out", Mcore2HfOptions(lora_alpha=ALPHA))
    assert differing(read_hf(tmp_path / "out"), merged(made, SCALE)) == []


def test_a_base_that_is_a_megatron_checkpoint(tmp_path: Path) -> None:
    made = make("qwen3_vl_moe", "mbridge")
    hf2mcore(base(tmp_path / "base", made), tmp_path / "mcore", Hf2McoreOptions())
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    mcore2hf(adapter, tmp_path / "out", Mcore2HfOptions(base=tmp_path / "mcore", lora_alpha=ALPHA))
    assert differing(read_hf(tmp_path / "out"), merged(made, SCALE)) == []


def test_padding_rows_of_an_output_layer_are_cut(tmp_path: Path) -> None:
    made = make("qwen3", "megatron-lm")
    tensors = names.bridge(made)
    b = "output_layer.adapter.linear_out.weight"
    tensors[b] = torch.cat([tensors[b], torch.ones(84, RANK, dtype=torch.bfloat16)])
    adapter = written(tmp_path / "adapter", made, tensors)
    mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=ALPHA)
    assert differing(read_hf(tmp_path / "out"), merged(made, SCALE)) == []


def test_another_dtype_is_rounded_to_at_once(tmp_path: Path) -> None:
    made = make("qwen3", "megatron-lm")
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    options: dict[str, Any] = {"base": base(tmp_path / "base", made), "lora_alpha": ALPHA}
    for dtype in (torch.float32, torch.float16):
        name = str(dtype).removeprefix("torch.")
        mcore2hf(adapter, tmp_path / name, Mcore2HfOptions(dtype=name, **options))
        expected = {n: t.to(dtype) for n, t in made.hf.items()} | {
            n: t for n, t in merged(made, SCALE, dtype).items() if n in made.inside
        }
        assert differing(read_hf(tmp_path / name), expected) == []


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3, "memory": "300MB"}, {"max_shard_size": "70KB"}])
def test_however_it_is_run_it_is_the_same(tmp_path: Path, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows of some rows of a tensor, in tiles of some of these."""
    made = make("qwen3_vl_moe", "mbridge")
    monkeypatch.setattr(merging, "TILE", 1000)
    monkeypatch.setattr(workers, "workers_of", lambda *given, **more: Workers(options.get("threads", 2), 4096))
    for user in ("fill", "execute", "to_hf.output"):
        monkeypatch.setattr(f"vlconv.converters.conversion.{user}.workers_of", workers.workers_of)
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=ALPHA, **options)
    assert differing(read_hf(tmp_path / "out"), merged(made, SCALE)) == []


def test_matrices_multiplied_in_float64_are_within_a_step(tmp_path: Path) -> None:
    """An order of the sum that is nobody's: what is rounded to bfloat16 differs in few places, by one step."""
    made = make("qwen3_vl", "mbridge", rank=16)
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=32)
    found, steps, elements = read_hf(tmp_path / "out"), 0, 0
    for weight, module in made.inside.items():
        exact = made.hf[weight].double() + 2 * (made.hf_b[weight].double() @ made.a[module].double())
        apart = (found[weight].view(torch.int16).int() - exact.bfloat16().view(torch.int16).int()).abs()
        assert int(apart.max()) <= 1
        steps, elements = steps + int(apart.sum()), elements + apart.numel()
    assert elements > 100_000 and steps <= elements // 2000


ALPHAS: list[tuple[str, Callable[[Path], object], str]] = [
    ("run_config.yaml", lambda p: _yaml(p, {"dim": RANK, "alpha": ALPHA}), "run_config.yaml (alpha)"),
    ("args.json", lambda p: _json(p, {"lora_rank": RANK, "lora_alpha": ALPHA}), "args.json (lora_alpha)"),
    ("set tags", lambda p: _text(p, f"peft:\n  alpha: {ALPHA}\n  params_to_save: !!set\n    x: null\n"), "run_config"),
]


def _yaml(place: Path, peft: dict[str, Any]) -> None:
    (place / "run_config.yaml").write_text(yaml.safe_dump({"peft": peft}))


def _text(place: Path, text: str) -> None:
    (place / "run_config.yaml").write_text(text)


def _json(place: Path, values: dict[str, Any]) -> None:
    (place.parent / "args.json").write_text(json.dumps(values))


class TestAlpha:
    """Where it comes from; it is never guessed."""

    @pytest.mark.parametrize(("where", "write", "said"), ALPHAS)
    def test_stated(self, tmp_path: Path, where: str, write: Callable[[Path], object], said: str) -> None:
        made = make("qwen3", "megatron-lm")
        adapter = written(tmp_path / "adapter", made, names.bridge(made))
        write(adapter / "iter_0000007")
        report = mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made))
        assert differing(read_hf(tmp_path / "out"), merged(made, SCALE)) == []
        assert said in report.told["adapter"]

    def test_rslora(self, tmp_path: Path) -> None:
        made = make("qwen3", "megatron-lm")
        adapter = written(tmp_path / "adapter", made, names.swift(made))
        _json(adapter / "iter_0000007", {"lora_alpha": ALPHA, "use_rslora": True})
        mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made))
        assert differing(read_hf(tmp_path / "out"), merged(made, ALPHA / 2)) == []

    def refused(self, tmp_path: Path, values: dict[str, Any], **options: Any) -> MismatchError:
        made = make("qwen3", "megatron-lm")
        adapter = written(tmp_path / "adapter", made, names.bridge(made), **values)
        with pytest.raises(MismatchError) as caught:
            mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), **options)
        assert not (tmp_path / "out").exists()
        return caught.value

    def test_nobody_says_it(self, tmp_path: Path) -> None:
        fault = self.refused(tmp_path, {"dim": RANK})
        assert "nothing beside the checkpoint states the adapter's alpha" in fault.what and "--lora-alpha" in fault.hint

    def test_two_say_different_things(self, tmp_path: Path) -> None:
        fault = self.refused(tmp_path, {"alpha": 8}, lora_alpha=ALPHA)
        assert "stated differently: --lora-alpha 6 and run_config.yaml (alpha) 8" in fault.what

    def test_another_rank(self, tmp_path: Path) -> None:
        fault = self.refused(tmp_path, {"alpha": 8, "dim": 8})
        assert "has rank 4, and run_config.yaml (dim) states 8" in fault.what

    @pytest.mark.parametrize("alpha", [0, -1, True, "16", float("nan"), 1e30])
    def test_none_that_can_be(self, tmp_path: Path, alpha: object) -> None:
        assert "which no adapter has" in self.refused(tmp_path, {"alpha": alpha}).what

    def test_normalized_ranks_of_experts(self, tmp_path: Path) -> None:
        made = make("qwen3_moe", "megatron-lm", lambda module: "experts" in module, rank=2)
        adapter = written(tmp_path / "adapter", made, names.bridge(made))
        peft = {"alpha": ALPHA, "dim": 4, "normalize_moe_lora": True}
        place = adapter / "iter_0000007" / "run_config.yaml"
        place.write_text(yaml.safe_dump({"peft": peft, "model": {"moe_router_topk": 2}}))
        mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made))
        assert differing(read_hf(tmp_path / "out"), merged(made, ALPHA / 2)) == []
        place.write_text(yaml.safe_dump({"peft": peft, "model": {"moe_router_topk": 4}}))
        with pytest.raises(MismatchError, match="states 4 divided by 4 experts per token"):
            mcore2hf(adapter, tmp_path / "again", base=tmp_path / "base")


def test_numbers_that_become_too_large_are_refused(tmp_path: Path) -> None:
    made = make("qwen3", "megatron-lm")
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    options: dict[str, Any] = {"base": base(tmp_path / "base", made), "lora_alpha": 1e6}
    with pytest.raises(MismatchError, match="with its adapter it holds numbers too large for float16"):
        mcore2hf(adapter, tmp_path / "out", dtype="float16", **options)
    mcore2hf(adapter, tmp_path / "wide", dtype="float32", **options)
