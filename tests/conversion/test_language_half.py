"""The language half of a model with a vision tower, as text-only runs save it, and the tower that goes along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hybrids import Model, Tensors, model, saved
from references import differing, read_hf
from refusing import refused
from tiny import tiny_config, write_tiny_hf, write_weights
from trainers.places import namespace, saved_names
from trainers.saving import save

from vlconv.converters import Mcore2HfOptions, VerifyOptions, mcore2hf, verify
from vlconv.converters.errors import MismatchError, NotComparable, ReferenceFault

SAMPLED = 2

HALVES = [
    *(
        (kind, name)
        for kind in ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl")
        for name in ("megatron-lm", "language-model")
    ),
    *((kind, name) for kind in ("qwen3_5", "qwen3_5_moe") for name in ("megatron-lm", "slime-text", "language-model")),
]
"""Models, and the layouts that their language half is saved in: without a prefix, or behind `language_model.`"""
SOME = [pytest.param(*half, marks=[pytest.mark.slow] if half[0].endswith("_moe") else []) for half in HALVES]


def whole(directory: Path, kind: str, seed: int = 0, **changes: Any) -> Model:
    """A model with its tower."""
    if kind.startswith("qwen3_5"):
        return model(directory, kind, seed=seed, **changes)
    config = tiny_config(kind, **changes)
    return Model(directory, config, write_tiny_hf(directory, config, seed))


def tower(kind: str) -> str:
    return "visual." if kind == "qwen2_5_vl" else "model.visual."


class Halves:
    """Of every kind a trained model, and a released one of other numbers. To be read only."""

    def __init__(self, root: Path) -> None:
        self.root, self.found = root, dict[Any, Any]()

    def _once(self, key: tuple[str, ...], make: Any) -> Any:
        if key not in self.found:
            self.found[key] = make(self.root / "-".join(key))
        return self.found[key]

    def trained(self, kind: str) -> Model:
        found: Model = self._once(("trained", kind), lambda at: whole(at, kind))
        return found

    def released(self, kind: str) -> Model:
        found: Model = self._once(("released", kind), lambda at: whole(at, kind, seed=7))
        return found

    def half(self, kind: str, name: str) -> Path:
        found: Path = self._once((kind, name), lambda at: saved(at, name, self.trained(kind)))
        return found

    def united(self, kind: str) -> Tensors:
        trained, released = self.trained(kind).tensors, self.released(kind).tensors
        return {n: (released if n.startswith(tower(kind)) else trained)[n] for n in trained}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return Halves(tmp_path_factory.mktemp("halves"))


@pytest.mark.parametrize(("kind", "name"), SOME)
def test_the_tower_goes_along(halves: Halves, tmp_path: Path, kind: str, name: str) -> None:
    source, reference, prefix = halves.half(kind, name), halves.released(kind).directory, tower(kind)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=reference, carry=(prefix,)))
    assert report.data["layout"] == name
    assert differing(read_hf(tmp_path / "hf"), halves.united(kind)) == []
    count = sum(n.startswith(prefix) for n in halves.united(kind))
    assert report.data["carried"]["prefixes"] == {prefix: count} and count > 30
    assert json.loads((tmp_path / "hf/config.json").read_text())["model_type"] == kind
    options = VerifyOptions(references=(reference,), carry=(prefix,))
    for pair in ((source, tmp_path / "hf"), (tmp_path / "hf", source)):
        report = verify(*pair, options)
        assert (report.status, report.differences) == ("same", [])
        assert report.data["tensors"] == len(halves.united(kind))


@pytest.mark.parametrize(("kind", "name"), [half for half in HALVES if not half[0].endswith("_moe")])
def test_without_it_the_half_is_called_one(halves: Halves, tmp_path: Path, kind: str, name: str) -> None:
    source, reference = halves.half(kind, name), halves.released(kind).directory
    refused(
        mcore2hf,
        source,
        tmp_path / "hf",
        Mcore2HfOptions(reference=reference),
        fault=MismatchError,
        says=f"holds the language model of a {kind} alone, without its vision tower",
        hint=f"--carry {tower(kind)} takes the tower",
    )
    with pytest.raises(NotComparable, match="without its vision tower"):
        verify(source, reference, VerifyOptions(references=(reference,)))


@pytest.mark.parametrize(("kind", "name"), [("qwen3_vl", "megatron-lm"), ("qwen3_5", "language-model")])
@pytest.mark.parametrize("at", ["norm.weight", "blocks.2."])
def test_a_flipped_bit_on_either_half_is_found(halves: Halves, tmp_path: Path, kind: str, name: str, at: str) -> None:
    wrong = {n: t.clone() for n, t in halves.united(kind).items()}
    tensor = next(n for n in wrong if (f"{tower(kind)}{at}" if "blocks" in at else f"language_model.{at}") in n)
    wrong[tensor].view(torch.int16).view(-1)[2] ^= 1
    directory = whole(tmp_path / "hf", kind).directory
    write_weights(directory, wrong)
    options = VerifyOptions(references=(halves.released(kind).directory,), carry=(tower(kind),))
    report = verify(halves.half(kind, name), directory, options)
    assert [(d.tensor, d.count) for d in report.differences] == [(tensor, 1)]


def test_tower_and_head_go_along_together(halves: Halves, tmp_path: Path) -> None:
    """A text-only run that built no head."""
    trained, released = model(tmp_path / "trained", "qwen3_5", head=False), halves.released("qwen3_5")
    source = saved(tmp_path / "saved", "slime-text", trained)
    asked = Mcore2HfOptions(reference=released.directory, carry=("model.visual.",), mtp="carry")
    report = mcore2hf(source, tmp_path / "hf", asked)
    theirs = {n: t for n, t in released.tensors.items() if n.startswith(("model.visual.", "mtp."))}
    assert differing(read_hf(tmp_path / "hf"), trained.tensors | theirs) == []
    assert report.data["carried"]["prefixes"].keys() == {"model.visual.", "mtp."}
    options = VerifyOptions(references=(released.directory,), carry=("model.visual.",), mtp="carry")
    assert verify(source, tmp_path / "hf", options).status == "same"


def stated(of: Model) -> dict[str, Any]:
    """Megatron's args of the language model, with all that no shape shows."""
    return namespace(of.config, norm_epsilon=1e-6, vocab_size=300, bos_token_id=280, eos_token_id=282)


class TestWithoutAReference:
    @pytest.mark.parametrize(("kind", "name"), [half for half in HALVES if half[1] == "language-model"])
    def test_behind_language_model_it_is_refused_as_a_half(
        self, halves: Halves, tmp_path: Path, kind: str, name: str
    ) -> None:
        """Even where it states all of itself, and a text-only model would fit."""
        of = halves.trained(kind)
        tensors = saved_names(name, of.config, of.tensors)
        for common in (None, stated(of)):
            source = save(tmp_path / str(common is None), tensors, common)
            says = "holds the language model of a model with a vision tower alone"
            error = refused(mcore2hf, source, tmp_path / "hf", fault=ReferenceFault, says=says, hint="--reference")
            assert "--carry" in error.hint

    @pytest.mark.parametrize("kind", ["qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"])
    def test_without_a_prefix_nothing_is_guessed(self, halves: Halves, tmp_path: Path, kind: str) -> None:
        with pytest.raises(ReferenceFault, match=r"rope_theta|no name tells them apart") as fault:
            mcore2hf(halves.half(kind, "megatron-lm"), tmp_path / "hf")
        assert "--reference" in fault.value.hint and not (tmp_path / "hf").exists()

    @pytest.mark.parametrize(("kind", "text"), [("qwen3_vl", "qwen3"), ("qwen2_5_vl", "qwen2")])
    def test_what_states_all_of_itself_is_a_text_only_model(
        self, halves: Halves, tmp_path: Path, kind: str, text: str
    ) -> None:
        """Of the same numbers, with the rope that the checkpoint states, and told."""
        of = halves.trained(kind)
        section = of.config.get("text_config", of.config)
        tensors = saved_names("megatron-lm", of.config, of.tensors)
        report = mcore2hf(save(tmp_path / "saved", tensors, stated(of)), tmp_path / "hf")
        config = json.loads((tmp_path / "hf/config.json").read_text())
        assert (config["model_type"], config["rope_theta"]) == (text, section["rope_theta"])
        names = {n: n.replace("model.language_model.", "model.") for n in of.tensors if not n.startswith(tower(kind))}
        assert differing(read_hf(tmp_path / "hf"), {new: of.tensors[old] for old, new in names.items()}) == []
        assert report.told["model"].startswith(text) and "for want of a reference" in report.told["config_from"]
        less = stated(of)
        del vars(less["args"])["rotary_base"]
        source = save(tmp_path / "silent", tensors, less)
        refused(mcore2hf, source, tmp_path / "out", fault=ReferenceFault, says="rope_theta", hint="--reference")
