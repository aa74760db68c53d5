"""Every trainer's checkpoint and megatron-core: what it computes, and what it is not asked to compute.

The checkpoints are made by formulas of the trainers (tests/trainers), and transformers computes on the original.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import logits
import numpy as np
import pytest
import torch
from tiny import tiny_config, write_tiny_hf
from trainers.places import TRAINERS, write

from vlconv.converters.checkpoint.mcore_side import McoreSide, open_mcore_side
from vlconv.converters.options import McoreSource
from vlconv.converters.verification.forward.megatron import model
from vlconv.converters.verification.forward.megatron.model import why_not
from vlconv.converters.verification.forward.megatron.run import run_megatron

SAMPLED = 4

OTHERWISE = "holds the language model otherwise than megatron-core: there is no "
HYBRID = "holds hybrid layers otherwise than megatron-core's own modules do"
NOT_RUN = {
    "ms-swift-gdn": HYBRID,
    "ms-swift-gdn-decoupled": HYBRID,
    "ms-swift-hf-gdn": HYBRID,
    "ms-swift-text": HYBRID,
    "slime": HYBRID,
    "slime-text": HYBRID,
    "mindspeed-mm-canonical": OTHERWISE,
    "hf": OTHERWISE,
    "hf-old": OTHERWISE,
    "hf-text": OTHERWISE,
}
"""Layouts, and what is said of them."""

CASES = [(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds]


class Made(NamedTuple):
    """A checkpoint, opened, and the model that it was made of."""

    side: McoreSide
    original: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Made]:
    """(layout, model) -> a checkpoint of a tiny model."""

    @cache
    def original(kind: str) -> tuple[Path, dict[str, Any], dict[str, torch.Tensor]]:
        directory, config = tmp_path_factory.mktemp(kind), tiny_config(kind)
        return directory, config, write_tiny_hf(directory, config, delta_dtype="bfloat16")

    def make(name: str, kind: str) -> Made:
        root = tmp_path_factory.mktemp("saved")
        directory, config, tensors = original(kind)
        write(root, name, config, tensors)
        tower = "visual." if kind == "qwen2_5_vl" else "model.visual."
        carry = (tower,) if name == "language-model" else ()
        return Made(open_mcore_side(root, McoreSource(reference=directory, carry=carry)), directory)

    return make


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_run(made: Callable[[str, str], Made], name: str, kind: str) -> None:
    why, expected = why_not(made(name, kind).side), NOT_RUN.get(name)
    assert (why is None) == (expected is None)
    assert why is None or (why.startswith(f"layout {name} ") and expected in why)


@pytest.mark.slow
@pytest.mark.mcore_versions
@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] not in NOT_RUN])
def test_computes_what_transformers_computes(
    tmp_path: Path, made: Callable[[str, str], Made], name: str, kind: str
) -> None:
    side, original = made(name, kind)
    ids = torch.randint(0, 290, (2, 20), generator=torch.Generator().manual_seed(1))
    run_megatron(side, ids.numpy(), tmp_path / "logits.npy")
    ours, theirs = torch.from_numpy(np.load(tmp_path / "logits.npy")), logits.load(original)(input_ids=ids).logits
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()


class TestNotRun:
    """Told, with the reason."""

    def test_without_megatron_core(self, monkeypatch: pytest.MonkeyPatch, made: Callable[[str, str], Made]) -> None:
        side = made("megatron-lm", "qwen3").side
        monkeypatch.setitem(sys.modules, "megatron", None)
        monkeypatch.delitem(sys.modules, "megatron.core", raising=False)
        assert why_not(side) == "megatron-core is not installed: pip install 'megatron-core>=0.16'"

    def test_by_an_old_megatron_core(self, monkeypatch: pytest.MonkeyPatch, made: Callable[[str, str], Made]) -> None:
        side = made("megatron-lm", "qwen3").side
        for version, fits in {
            "0.15.3": False,
            "0.9.0rc1": False,
            "0.16.0rc0": True,
            "0.19.2": True,
            "1.0": True,
        }.items():
            monkeypatch.setattr(model, "installed", lambda _, version=version: version)
            words = f"megatron-core {version} is installed, which is too old: pip install 'megatron-core>=0.16'"
            assert why_not(side) == (None if fits else words)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"hidden_act": "gelu"}, "hidden_act is gelu, and Megatron's args have a word for silu alone"),
            (
                {"use_sliding_window": True, "sliding_window": 16},
                "attention reaches back 16 tokens, for which Megatron's args have no word",
            ),
            ({"use_sliding_window": True, "sliding_window": 48}, None),  # as far as there are tokens
            ({"use_sliding_window": False, "sliding_window": 16}, None),
            (
                {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
                "positions are scaled (yarn), for which Megatron's args have no word",
            ),
        ],
    )
    def test_of_another_config(self, tmp_path: Path, fields: dict[str, Any], words: str | None) -> None:
        config = tiny_config("qwen3")
        tensors = write_tiny_hf(tmp_path / "hf", config)
        write(tmp_path / "saved", "megatron-lm", config, tensors)
        (tmp_path / "hf" / "config.json").write_text(json.dumps(config | fields))
        assert why_not(open_mcore_side(tmp_path / "saved", McoreSource(reference=tmp_path / "hf"))) == words
