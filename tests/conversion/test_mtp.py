"""A multi-token-prediction head there and back, carried and left behind; of a model that was given one for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from heads import FIELD, HEAD, with_head
from mcore.tiny import random_hf_tensors, tiny
from references import differing, read_hf, write_hf
from refusing import edit_config

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
from vlconv.converters.errors import MismatchError, OptionError, ReferenceFault

Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def head(monkeypatch: pytest.MonkeyPatch) -> None:
    with_head(monkeypatch)


def tensors(seed: int = 0, *, head: bool = True) -> Tensors:
    hf = random_hf_tensors(tiny(), seed)
    generator = torch.Generator().manual_seed(seed + 100)
    shapes = {"mtp.fc.weight": (64, 128), "mtp.layers.0.input_layernorm.weight": (64,)}
    return hf | ({n: torch.randn(s, generator=generator).bfloat16() for n, s in shapes.items()} if head else {})


def promising(directory: Path, hf: Tensors, count: int | None = 1) -> Path:
    """A Hugging Face directory whose config.json promises so many layers; None: has no word for it."""
    write_hf(directory, tiny(), hf)
    if count is not None:
        edit_config(directory, lambda config: config["text_config"].update({FIELD: count}))
    return directory


def saved(directory: Path) -> Tensors:
    """What a checkpoint holds, one tensor for each layer."""
    return dcp.unstacked(dcp.load(directory / "release"))


def promised(directory: Path) -> Any:
    return json.loads((directory / "config.json").read_text())["text_config"].get(FIELD)


@pytest.fixture
def without(tmp_path: Path) -> Path:
    """A checkpoint without a head whose config.json promises one, as trainers leave it."""
    hf2mcore(promising(tmp_path / "source", tensors(head=False), 0), tmp_path / "without")
    edit_config(tmp_path / "without/huggingface", lambda config: config["text_config"].update({FIELD: 1}))
    return tmp_path / "without"


@pytest.fixture
def having(tmp_path: Path) -> Path:
    hf2mcore(promising(tmp_path / "source", tensors()), tmp_path / "having")
    return tmp_path / "having"


def test_what_is_there_goes_along(having: Path, tmp_path: Path) -> None:
    assert set(HEAD.values()) <= saved(having).keys()
    for asked in (None, "require"):
        report = mcore2hf(having, tmp_path / str(asked), Mcore2HfOptions(mtp=asked))
        assert differing(read_hf(tmp_path / str(asked)), tensors()) == []
        assert promised(tmp_path / str(asked)) == 1 and "1 layers of multi-token" in report.told["model"]
    assert verify(having, tmp_path / "require").status == "same"
    assert verify(having).status == "same"


def test_a_promise_without_tensors_is_refused_on_either_side(without: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="promises a multi-token-prediction head") as fault:
        mcore2hf(without, tmp_path / "hf")
    assert "--mtp carry" in fault.value.hint and "--mtp drop" in fault.value.hint
    source = promising(tmp_path / "hf", tensors(head=False))
    with pytest.raises(MismatchError, match="promises a multi-token-prediction head") as fault:
        hf2mcore(source, tmp_path / "mcore")
    assert "--mtp carry" not in fault.value.hint and "--mtp drop" in fault.value.hint


def test_carried(without: Path, tmp_path: Path) -> None:
    """Byte for byte from the reference, and told as untrained."""
    reference = promising(tmp_path / "reference", tensors(5))
    asked: dict[str, Any] = {"reference": reference, "mtp": "carry"}
    report = mcore2hf(without, tmp_path / "hf", Mcore2HfOptions(**asked))
    union = tensors(head=False) | {name: tensors(5)[name] for name in HEAD}
    assert differing(read_hf(tmp_path / "hf"), union) == []
    assert promised(tmp_path / "hf") == 1
    assert report.told["carried"].startswith("2 mtp.* from ")
    assert report.data["carried"]["untrained"] is True
    assert "carried" in json.loads((tmp_path / "hf/vlconv.json").read_text())["decisions"]
    options = VerifyOptions(references=(reference,), mtp="carry")
    assert verify(without, tmp_path / "hf", options).status == "same"
    assert verify(without, tmp_path / "hf", VerifyOptions(references=(reference,), mtp="drop")).status == "same"
    mcore2mcore(without, tmp_path / "mcore", Mcore2McoreOptions(**asked))
    found = saved(tmp_path / "mcore")
    assert all(torch.equal(found[HEAD[name]], union[name]) for name in HEAD)
    assert promised(tmp_path / "mcore/huggingface") == 1
    assert verify(without, tmp_path / "mcore", options).status == "same"


def test_carried_to_a_config_without_a_word(tmp_path: Path) -> None:
    """As Qwen3-Next's: what the weights have is what there is."""
    hf2mcore(promising(tmp_path / "source", tensors(head=False), None), tmp_path / "mcore")
    reference = promising(tmp_path / "reference", tensors(5), None)
    mcore2hf(tmp_path / "mcore", tmp_path / "hf", Mcore2HfOptions(reference=reference, mtp="carry"))
    assert differing(read_hf(tmp_path / "hf"), tensors(head=False) | {n: tensors(5)[n] for n in HEAD}) == []
    hf2mcore(tmp_path / "hf", tmp_path / "again")
    assert set(HEAD.values()) <= saved(tmp_path / "again").keys()
    assert promised(tmp_path / "hf") is None


def test_nothing_to_carry_from(without: Path, tmp_path: Path) -> None:
    for name, hf, says in (
        ("none", tensors(head=False), "no tensor whose name begins with 'mtp.'"),
        ("part", {n: t for n, t in tensors().items() if n != "mtp.fc.weight"}, "lack mtp.fc.weight"),
    ):
        asked = Mcore2HfOptions(reference=promising(tmp_path / name, hf), mtp="carry")
        with pytest.raises(ReferenceFault, match=says):
            mcore2hf(without, tmp_path / "hf", asked)
    more = promising(tmp_path / "more", tensors() | {"mtp.layers.1.b": torch.ones(2)})
    with pytest.raises(MismatchError, match=r"mtp\.layers\.1\.b is of no multi-token-prediction head"):
        mcore2hf(without, tmp_path / "hf", Mcore2HfOptions(reference=more, mtp="carry"))


def test_dropped(having: Path, tmp_path: Path) -> None:
    report = mcore2hf(having, tmp_path / "hf", Mcore2HfOptions(mtp="drop"))
    assert differing(read_hf(tmp_path / "hf"), tensors(head=False)) == []
    assert promised(tmp_path / "hf") == 0
    assert sorted(report.data["left_behind"]) == sorted(HEAD.values())
    assert report.data["ignored"]["tensors of a multi-token-prediction head"] == 2
    assert json.loads((tmp_path / "hf/vlconv.json").read_text())["changes"]["left_behind"]
    mcore2mcore(having, tmp_path / "mcore", Mcore2McoreOptions(mtp="drop"))
    assert not set(HEAD.values()) & saved(tmp_path / "mcore").keys()
    assert promised(tmp_path / "mcore/huggingface") == 0
    assert verify(having, tmp_path / "hf", VerifyOptions(mtp="drop")).status == "same"


def test_dropped_from_a_hugging_face_directory(tmp_path: Path) -> None:
    source = promising(tmp_path / "hf", tensors())
    report = hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(mtp="drop"))
    assert not set(HEAD.values()) & saved(tmp_path / "mcore").keys()
    assert promised(tmp_path / "mcore/huggingface") == 0
    assert sorted(report.data["left_behind"]) == sorted(HEAD)
    mcore2hf(tmp_path / "mcore", tmp_path / "back")
    assert differing(read_hf(tmp_path / "back"), tensors(head=False)) == []


def test_a_promise_is_taken_back(tmp_path: Path, without: Path) -> None:
    """Nothing is left behind then, but config.json is another."""
    source = promising(tmp_path / "hf", tensors(head=False))
    hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(mtp="drop"))
    assert promised(tmp_path / "mcore/huggingface") == 0
    report = mcore2hf(without, tmp_path / "back", Mcore2HfOptions(mtp="drop"))
    assert report.told["left_behind"].startswith("the promise of a multi-token-prediction head")
    assert promised(tmp_path / "back") == 0
    assert differing(read_hf(tmp_path / "back"), tensors(head=False)) == []


def test_a_hugging_face_source_has_nothing_to_carry_from() -> None:
    with pytest.raises(OptionError, match="a Hugging Face source has none"):
        Hf2McoreOptions(mtp="carry")  # type: ignore[arg-type]


def test_a_part_of_a_head_is_dropped_too(tmp_path: Path) -> None:
    """Names of its own, though no layer among them."""
    source = promising(tmp_path / "hf", tensors(head=False) | {"mtp.fc.weight": torch.ones(3).bfloat16()})
    hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(mtp="drop"))
    assert promised(tmp_path / "mcore/huggingface") == 0
