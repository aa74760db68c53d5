"""megatron-core's own model on the language model of a checkpoint, as `verify --forward` runs it.

megatron-core itself wrote the checkpoints, and transformers computes on the Hugging Face tensors that they were made
of: no table of vlconv stands between the two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import logits
import numpy as np
import pytest
import torch
from converting import sizes, to_mcore
from mcore.forward import hf_text_logits
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5, tiny_hybrid, tiny_text
from mcore.topology import Topology
from references import write_hf, write_reference

from vlconv.converters.checkpoint.mcore_side import McoreSide, open_mcore_side
from vlconv.converters.models.shared.config import ModelConfig
from vlconv.converters.options import McoreSource
from vlconv.converters.tensors.spec import Box, Reader, TensorSpec, whole
from vlconv.converters.verification.forward.megatron.model import memory_needed, why_not
from vlconv.converters.verification.forward.megatron.run import again_of, run_megatron

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "dense": tiny(),
    "hybrid": tiny_hybrid("qwen3_next"),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(tied=True),
    "qwen2": tiny_text("qwen2"),
    "qwen3": tiny_text("qwen3", tied=True),
    "qwen3 moe": tiny_text("qwen3_moe"),
    "qwen3.5": tiny_hybrid("qwen3_5"),
    "qwen3.5 moe": tiny_hybrid("qwen3_5_moe"),
    "qwen3.5 text": tiny_hybrid("qwen3_5_text", tied=True, mtp=0),
    "qwen3.5 text moe": tiny_hybrid("qwen3_5_moe_text"),
}
QUICK = ("dense",)

SAME = 1e-5
"""float32: 3e-6 was seen, of hybrids, whose delta rule transformers solves and megatron-core adds up."""
OTHER = 0.05
"""Far above rounding: what a wrong order costs at least."""


def case(name: str) -> Any:
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


def ids(length: int = 70) -> torch.Tensor:
    """Longer than one chunk of the delta rule, 64 positions."""
    return torch.randint(0, 248, (2, length), generator=torch.Generator().manual_seed(1))


def weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    return random_hf_tensors(config, scale=0.05)


def saved(tmp_path: Path, config: ModelConfig, **how: Any) -> McoreSide:
    """Opened, as megatron-core wrote it: cut for two tensor ranks and, where it can, two stages; padded to 256 rows."""
    stages = 1 if config.text.tied and config.text.mtp else 2
    form = "per_layer" if config.text.kernel else "stacked"
    source = save(
        tmp_path / "mcore",
        config,
        weights(config),
        Topology(tp=2, pp=stages),
        form=form,
        padded=True,
        args=False,
        **how,
    )
    return opened(source, write_reference(tmp_path / "reference", config))


def opened(source: Path, reference: Path) -> McoreSide:
    return open_mcore_side(source, McoreSource(reference=reference))


def computed(side: McoreSide, tmp_path: Path, layers: int | None = None) -> torch.Tensor:
    said = run_megatron(side, ids().numpy(), tmp_path / "logits.npy", layers)
    assert said.startswith("megatron-core 0.")
    found = np.load(tmp_path / "logits.npy")
    assert found.dtype == np.float32
    return torch.from_numpy(found)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    assert b.std() > 0.05  # something was computed
    return (a - b).abs().max().item()


class Changed:
    """A checkpoint's tensors, some of them changed."""

    def __init__(self, below: Reader, end: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.below, self.end, self.change = below, end, change

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self.below.specs

    def read_into(self, box: Box, out: np.ndarray) -> None:
        if not box.name.endswith(self.end):
            return self.below.read_into(box, out)
        spec = self.specs[box.name]
        array = np.empty(spec.shape, out.dtype)
        self.below.read_into(whole(spec), array)
        out[...] = self.change(array)[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]
        return None

    def finish(self) -> None:
        self.below.finish()


class TestLogits:
    @pytest.mark.parametrize("name", [*map(case, CONFIGS)])
    def test_are_those_of_transformers(self, tmp_path: Path, name: str) -> None:
        config = CONFIGS[name]
        side = saved(tmp_path, config)
        assert why_not(side) is None
        assert gap(computed(side, tmp_path), hf_text_logits(weights(config), config, ids())) < SAME

    def test_of_the_first_layers(self, tmp_path: Path) -> None:
        """A hybrid's first three layers have a Gated DeltaNet, the fourth attends; there are six."""
        config = tiny_hybrid("qwen3_next", layers=6, linear_layers=[0, 1, 2, 4], mtp=0)
        side = saved(tmp_path, config)
        cut = replace(config, text=replace(config.text, layers=4, linear_layers=frozenset([0, 1, 2])))
        kept = {
            name: t for name, t in weights(config).items() if not name.startswith(("model.layers.4", "model.layers.5"))
        }
        assert gap(computed(side, tmp_path, layers=4), hf_text_logits(kept, cut, ids())) < SAME
        assert memory_needed(side, 4) < memory_needed(side, 5) < memory_needed(side, None)

    @pytest.mark.slow
    @pytest.mark.parametrize("layers", [1, 2, 9])
    @pytest.mark.parametrize("name", ["mixed", "2.5", "qwen3.5 moe"])
    def test_of_any_number_of_layers(self, tmp_path: Path, name: str, layers: int) -> None:
        config, text = CONFIGS[name], CONFIGS[name].text
        count = min(layers, text.layers)
        kept = frozenset(range(count))
        cut = replace(
            text, layers=count, dense_layers=text.dense_layers & kept, linear_layers=text.linear_layers & kept
        )
        gone = tuple(f"layers.{i}." for i in range(count, text.layers))
        hf = {name: tensor for name, tensor in weights(config).items() if not any(mark in name for mark in gone)}
        found = computed(saved(tmp_path, config), tmp_path, layers)
        assert gap(found, hf_text_logits(hf, replace(config, text=cut), ids())) < SAME

    @pytest.mark.slow
    @pytest.mark.parametrize("spec", ["te", "local"])
    @pytest.mark.parametrize("form", ["stacked", "per_layer", "singleton"])
    def test_of_every_form(self, tmp_path: Path, form: Any, spec: Any) -> None:
        config = CONFIGS["moe"]
        source = save(tmp_path / "mcore", config, weights(config), Topology(ep=2), form=form, spec=spec, args=False)
        side = opened(source, write_reference(tmp_path / "reference", config))
        assert gap(computed(side, tmp_path), hf_text_logits(weights(config), config, ids())) < SAME

    @pytest.mark.slow
    def test_of_rank_files(self, tmp_path: Path) -> None:
        """Megatron's legacy format, written by vlconv of Hugging Face weights."""
        config = CONFIGS["mixed"]
        to_mcore(
            tmp_path, config, weights(config), **sizes(Topology(tp=2, pp=2, ep=2)), make_vocab_size_divisible_by=64
        )
        side = opened(tmp_path / "mcore", tmp_path / "hf")
        assert gap(computed(side, tmp_path), hf_text_logits(weights(config), config, ids())) < SAME

    @pytest.mark.slow
    def test_are_the_same_where_faster_libraries_are_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are not asked: each would end the process."""
        for name in ("transformer_engine", "apex", "fla", "causal_conv1d", "flash_attn"):
            module, told = tmp_path / "site" / name, tmp_path / "site" / f"{name}-2.9.0.dist-info"
            module.mkdir(parents=True)
            told.mkdir()
            (module / "__init__.py").write_text("import os\nos._exit(9)\n")
            (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.9.0\n")
        config = CONFIGS["qwen3.5 moe"]
        side = saved(tmp_path, config)
        usual = computed(side, tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
        assert torch.equal(computed(side, tmp_path), usual)


class TestHybrid:
    """What is particular about Gated DeltaNets: a norm that converting rounds, and a rule that magnifies rounding."""

    @pytest.mark.slow
    def test_output_norms_are_rounded_as_converting_rounds_them(self, tmp_path: Path) -> None:
        """0.4912 and one is no bfloat16."""
        config, hf = CONFIGS["hybrid"], weights(CONFIGS["hybrid"])
        less_one = torch.tensor(0.4912, dtype=torch.bfloat16)
        bits = less_one.view(torch.int16).numpy().view(np.uint16)
        side = saved(tmp_path, config)
        other = Changed(side.reader, "out_norm.weight", lambda norm: np.full_like(norm, bits))
        found = computed(replace(side, reader=other), tmp_path)
        exact, rounded = less_one.float() + 1, (less_one.float() + 1).bfloat16()
        assert exact != rounded

        def with_norms(value: torch.Tensor) -> torch.Tensor:
            changed = {
                n: torch.full_like(t, value) if n.endswith("linear_attn.norm.weight") else t for n, t in wide.items()
            }
            return hf_text_logits(changed, config, ids())

        wide = {name: tensor.float() for name, tensor in hf.items()}
        assert gap(found, with_norms(rounded)) < SAME
        assert gap(found, with_norms(exact)) > 10 * SAME

    @pytest.mark.slow
    def test_noise_is_measured(self, tmp_path: Path) -> None:
        """It is no less than a tenth of how far transformers is away, and far below what a wrong order costs."""
        config = CONFIGS["qwen3.5"]
        found = computed(saved(tmp_path, config), tmp_path)
        noise = gap(torch.from_numpy(np.load(again_of(tmp_path / "logits.npy"))), found)
        assert gap(found, hf_text_logits(weights(config), config, ids())) / 10 < noise < OTHER / 100

    def test_only_there(self, tmp_path: Path) -> None:
        computed(saved(tmp_path, CONFIGS["tied"]), tmp_path)
        assert not again_of(tmp_path / "logits.npy").exists()


class TestAnotherOrderShows:
    """The negative control: nothing between a file and megatron-core puts an order right."""

    def test_of_heads(self, tmp_path: Path) -> None:
        config = CONFIGS["dense"]
        side = saved(tmp_path, config)
        other = Changed(side.reader, "linear_qkv.weight", lambda qkv: np.roll(qkv, config.text.head_dim, axis=0))
        found = computed(replace(side, reader=other), tmp_path)
        assert gap(found, hf_text_logits(weights(config), config, ids())) > OTHER

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "end"),
        [
            ("moe", "experts.linear_fc2.weight"),
            ("moe", "experts.linear_fc1.weight"),
            ("hybrid", "in_proj.weight"),
            ("hybrid", "conv1d.weight"),
            ("hybrid", "out_proj.weight"),
            ("hybrid", "A_log"),
            ("hybrid", "dt_bias"),
            ("hybrid", "linear_qkv.weight"),
            ("hybrid", "shared_experts.linear_fc1.weight"),
            ("2.5", "linear_qkv.bias"),
            ("dense", "output_layer.weight"),
        ],
    )
    def test_of_rows(self, tmp_path: Path, name: str, end: str) -> None:
        config = CONFIGS[name]
        side = saved(tmp_path, config)
        assert any(name.endswith(end) for name in side.reader.specs)
        found = computed(replace(side, reader=Changed(side.reader, end, lambda t: np.roll(t, 1, axis=0))), tmp_path)
        assert gap(found, hf_text_logits(weights(config), config, ids())) > OTHER / 10


class TestConfig:
    """What no tensor shows is taken from config.json."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "fields"),
        [
            ("qwen3", {"rope_theta": 1234}),
            ("qwen3", {"rms_norm_eps": 0.05}),
            ("qwen3_moe", {"num_experts_per_tok": 3}),
            ("qwen3_moe", {"norm_topk_prob": False}),
            (
                "qwen3_next",
                {"rope_theta": 1234, "partial_rotary_factor": 0.5},
            ),
        ],
    )
    def test_decides(self, tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
        config = tiny_hybrid(kind, mtp=0) if kind == "qwen3_next" else tiny_text(kind)
        form = "per_layer" if config.text.kernel else "stacked"
        source = save(tmp_path / "mcore", config, weights(config), Topology(), form=form, args=False)
        plain, other = (write_hf(tmp_path / name, config, weights(config)) for name in ("plain", "other"))
        made = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(made | fields))
        found = computed(opened(source, other), tmp_path)
        expected, usual = ((logits.load(directory))(input_ids=ids()).logits.detach() for directory in (other, plain))
        assert gap(found, expected) < SAME
        assert gap(found, usual) > OTHER / 10
