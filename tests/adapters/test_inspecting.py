"""inspect of checkpoints with adapters: which, where alpha comes from, and how to go on; no tensor is read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from lora import names
from lora.making import RANK, make
from lora.saved import base, with_reference, written
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import inspect
from vlconv.converters.formats.chunks import ChunkReader


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("qwen3_vl", "ms-swift", lambda module: "decoder" in module)
    adapter = written(tmp_path / "adapter", made, names.swift(made))
    monkeypatch.setattr(ChunkReader, "read_into", lambda *args: pytest.fail("a tensor is read"))
    found = inspect(adapter)
    assert found.adapter and (found.adapter.family, found.adapter.modules) == ("ms-swift", len(made.a))
    assert found.adapter.ranks == (RANK,) and found.adapter.alpha is None and not found.adapter.base_here
    assert set(found.adapter.targets) == {"linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"}
    assert found.adapter.parameters == sum(t.numel() for t in names.swift(made).values())
    assert not found.converts and "an adapter (LoRA) alone" in found.why_not
    assert found.next == (f"vlconv mcore2hf {adapter} adapter-hf --base HF_MODEL --lora-alpha ALPHA",)
    (tmp_path / "args.json").write_text(json.dumps({"lora_alpha": 32, "lora_rank": RANK}))
    (tmp_path / "adapter" / "args.json").write_text(json.dumps({"lora_alpha": 32, "lora_rank": RANK}))
    found = inspect(adapter)
    assert found.adapter and (found.adapter.alpha, found.adapter.alpha_from) == (32, "args.json (lora_alpha)")
    assert found.next == (f"vlconv mcore2hf {adapter} adapter-hf --base HF_MODEL",)
    said = CliRunner().invoke(app, ["inspect", str(adapter)]).stdout
    assert "16 modules (linear_qkv, linear_proj, linear_fc1, linear_fc2)" in said
    assert "rank 4, alpha 32 (args.json (lora_alpha)); without its base" in said
    document = json.loads(CliRunner().invoke(app, ["inspect", str(adapter), "--json"]).stdout)
    assert document["adapter"]["alpha"] == 32 and document["adapter"]["ranks"] == [RANK]


def test_what_is_printed_is_run(tmp_path: Path) -> None:
    made = make("qwen3", "megatron-lm")
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    (line,) = inspect(adapter).next
    words = [w.replace("HF_MODEL", str(base(tmp_path / "base", made))).replace("ALPHA", "8") for w in shlex.split(line)]
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    assert Path("adapter-hf/model.safetensors").exists()


def test_beside_its_base(tmp_path: Path) -> None:
    made = make("qwen3", "megatron-lm")
    both = with_reference(written(tmp_path / "both", made, names.bridge(made) | made.base, dim=RANK, alpha=16), made)
    found = inspect(both)
    assert found.adapter and found.adapter.base_here and found.adapter.alpha_from == "run_config.yaml (alpha)"
    assert found.converts and found.next[0] == f"vlconv mcore2hf {both} both-hf"
    assert found.parameters == sum(t.numel() for t in made.base.values())
    (both / "iter_0000007" / "run_config.yaml").unlink()
    found = inspect(both)
    assert not found.converts and "states the adapter's alpha" in found.why_not
    assert found.next == (f"vlconv mcore2hf {both} both-hf --lora-alpha ALPHA",)
