"""Text-only models and hybrids without a reference: Megatron's args and shapes say what config.json is made of, or a
refusal names what they do not say.

megatron-core's own modules saved the checkpoints; transformers opens what is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from converting import slow
from logits import logits
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny_hybrid, tiny_text
from mcore.topology import Topology
from references import differing, read_hf, reference_config, write_hf
from run_config import vision_and_ids

from vlconv.converters import mcore2hf
from vlconv.converters.checkpoint.mcore_side import open_mcore_side
from vlconv.converters.errors import ReferenceFault
from vlconv.converters.formats.dcp.write import plan_torch_dist
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import RELEASES, model_of
from vlconv.converters.models.shared.config import ModelConfig
from vlconv.converters.options import McoreSource
from vlconv.converters.tensors.rules import table
from vlconv.converters.tensors.spec import TensorSpec

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

# 300 rows, so that the ids of tests/tiny.py are in it.
CONFIGS = {
    "qwen2": tiny_text("qwen2", vocab=300),
    "qwen2 tied": tiny_text("qwen2", tied=True, vocab=300),
    "qwen3": tiny_text("qwen3", vocab=300),
    "moe": tiny_text("qwen3_moe", vocab=300),
    "mixed": tiny_text("qwen3_moe", dense_layers=[0, 2], vocab=300),
    "3.5": tiny_hybrid("qwen3_5", vocab=300),
    "3.5 tied": tiny_hybrid("qwen3_5", tied=True, vocab=300, mtp=0),
    "3.5 moe": tiny_hybrid("qwen3_5_moe", vocab=300),
    "3.5 text": tiny_hybrid("qwen3_5_text", vocab=300),
    "3.5 text, other layers": tiny_hybrid("qwen3_5_text", vocab=300, layers=5, linear_layers=[0, 3]),
}
LATER = ("qwen2 tied", "qwen3", "mixed", "3.5 moe", "3.5 text")
"""Left to `make test-all`."""
NEVER_IN_ARGS = {True: ["vision_config.num_heads"], False: []}
"""Of a model with a tower, and of another."""


def ids(config: ModelConfig) -> dict[str, Any]:
    """What a run_config.yaml has to say besides: the ids of a release are beyond so small a vocabulary."""
    return {"model": vision_and_ids(reference_config(config))}


@pytest.mark.parametrize("name", [slow(name) if name in LATER else name for name in CONFIGS])
def test_args_suffice(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    hf = random_hf_tensors(config, scale=0.05)
    source = save(tmp_path / "ckpt", config, hf, Topology(tp=2), padded=True)
    is_converted(tmp_path, source, config, hf)


@pytest.mark.parametrize("name", [slow("qwen2 tied"), "mixed", "3.5", slow("3.5 text")])
def test_of_rank_files(tmp_path: Path, name: str) -> None:
    """Whose shapes are a rank's own."""
    config = CONFIGS[name]
    hf = random_hf_tensors(config, scale=0.05)
    source = save_legacy(tmp_path / "ckpt", config, hf, Topology(tp=2, pp=2), padded=True)
    is_converted(tmp_path, source, config, hf)


def is_converted(tmp_path: Path, source: Path, config: ModelConfig, hf: dict[str, torch.Tensor]) -> None:
    """To the same tensors and a config.json that computes the same; refused as long as no ids fit."""
    with pytest.raises(ReferenceFault, match="it does not say itself: ") as refused:
        mcore2hf(source, tmp_path / "hf")
    said = refused.value.what.partition("it does not say itself: ")[2].split(", ")
    assert [n for n in said if not n.endswith("_token_id")] == NEVER_IN_ARGS[config.vision is not None]
    assert not (tmp_path / "hf").exists()
    (source / "run_config.yaml").write_text(yaml.safe_dump(ids(config)))
    report = mcore2hf(source, tmp_path / "hf")
    assert differing(read_hf(tmp_path / "hf"), hf) == []
    assert report.data["reference"] is None
    assert report.data["config_from"]["rotary_base in the checkpoint's args"]
    made, reference = json.loads((tmp_path / "hf" / "config.json").read_text()), reference_config(config)
    assert made["tie_word_embeddings"] is config.text.tied
    assert made.get("text_config", made).get("mtp_num_hidden_layers", 0) == config.text.mtp
    assert (made["model_type"], made["architectures"]) == (reference["model_type"], reference["architectures"])
    original = write_hf(tmp_path / "original", config, hf)
    assert torch.equal(logits(tmp_path / "hf"), logits(original))


@pytest.mark.parametrize(
    "config",
    [tiny_text("qwen3", vocab=151936), slow(tiny_hybrid("qwen3_5_text", vocab=248320))],
    ids=lambda config: config.model_type,
)
def test_nothing_else_is_asked_where_the_vocabulary_is_that_of_releases(tmp_path: Path, config: ModelConfig) -> None:
    hf = random_hf_tensors(config)
    assert mcore2hf(save(tmp_path / "ckpt", config, hf, Topology(tp=2)), tmp_path / "hf").status == "done"
    assert differing(read_hf(tmp_path / "hf"), hf) == []


@pytest.mark.parametrize("name", [slow("qwen2"), "qwen3", slow("moe"), "3.5", slow("3.5 text")])
def test_shapes_alone_do_not(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    source = save(tmp_path / "ckpt", config, random_hf_tensors(config), Topology(), args=False)
    (source / "run_config.yaml").write_text(yaml.safe_dump(ids(config)))
    with pytest.raises(ReferenceFault, match=r"it does not say itself: .*rope_theta") as refused:
        mcore2hf(source, tmp_path / "hf")
    assert "--reference" in refused.value.hint
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("kind", ["qwen3_5_moe_text", "qwen3_next"])
def test_two_models_of_the_same_tensors_are_not_told_apart(tmp_path: Path, kind: str) -> None:
    config = tiny_hybrid(kind)
    source = save(tmp_path / "ckpt", config, random_hf_tensors(config), Topology())
    with pytest.raises(ReferenceFault, match="those of qwen3_5_moe_text and of qwen3_next"):
        mcore2hf(source, tmp_path / "hf")


def sparse(directory: Path, config: ModelConfig) -> Path:
    """A checkpoint of these shapes: metadata and what stands around each tensor in full, no weights."""
    layout = LAYOUTS[model_of(config).default_layout]
    shapes = table(layout.rules(config, -(-config.text.vocab // 512) * 512)).left()
    for file in plan_torch_dist({n: TensorSpec(n, s, "bfloat16") for n, s in shapes.items()}, ("layers",), (), 0):
        with (directory / file.name).open("wb") as out:
            out.truncate(file.size)
            for offset, data in [*file.literals, *(file.seal([1] * len(file.pieces)) if file.seal else [])]:
                out.seek(offset)
                out.write(data)
    return directory


@pytest.mark.parametrize("name", ["Qwen3-8B", slow("Qwen3-30B-A3B"), slow("Qwen2.5-7B")])
def test_releases_of_one_shape_differ_in_their_rope(tmp_path: Path, name: str) -> None:
    """So nothing is assumed, though all the rest of a release is known by its shapes."""
    (release,) = [r for r in RELEASES if r.name == name]
    with pytest.raises(ReferenceFault, match=r"it does not say itself: rope_theta(, rms_norm_eps)?\n"):
        open_mcore_side(sparse(tmp_path, release.config), McoreSource())
