"""verify of a merged model: the merge is computed again, and what is not what it makes is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lora import names
from lora.making import RANK, Made, make, merged
from lora.saved import base, with_reference, written
from references import read_hf
from safetensors.torch import load_file, save_file
from tiny import write_weights

from vlconv.converters import Hf2McoreOptions, NotComparable, hf2mcore, mcore2hf, verify

SAMPLED = 2

ALPHA = 6


@pytest.fixture(scope="module")
def made() -> Made:
    return make("qwen3_vl_moe", "mbridge")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, made: Made) -> dict[str, Path]:
    """An adapter alone, the same beside its base, the base, and what was made of them."""
    root = tmp_path_factory.mktemp("merged")
    adapter = written(root / "adapter", made, names.bridge(made), dim=RANK, alpha=ALPHA)
    both = with_reference(written(root / "both", made, names.bridge(made) | made.base, alpha=ALPHA), made)
    model = base(root / "base", made)
    mcore2hf(both, root / "out")
    mcore2hf(adapter, root / "wide", base=model, dtype="float32")
    mcore2hf(adapter, root / "peft", adapter=True, base=model)
    hf2mcore(model, root / "mcore", Hf2McoreOptions())
    return {name: root / name for name in ("adapter", "both", "base", "out", "wide", "peft", "mcore")}


def changed(made: Made) -> dict[str, Any]:
    return {n: int((t != made.hf[n]).sum()) for n, t in merged(made, ALPHA / RANK).items() if n in made.inside}


def test_a_checkpoint_with_base_and_adapter(places: dict[str, Path], made: Made) -> None:
    report = verify(places["both"], places["out"])
    assert report.status == "same"
    assert report.data["merged"]["tensors"] == changed(made)
    assert "alpha 6 from run_config.yaml" in report.told["a_adapter"]


@pytest.mark.parametrize("kind", ["base", "mcore"])
def test_an_adapter_alone(places: dict[str, Path], made: Made, kind: str) -> None:
    report = verify(places["adapter"], places["out"], base=places[kind])
    assert report.status == "same" and report.data["merged"]["tensors"] == changed(made)


@pytest.mark.parametrize(("source", "kind"), [("adapter", "base"), ("adapter", "mcore"), ("both", None)])
def test_another_dtype(places: dict[str, Path], source: str, kind: str | None) -> None:
    report = verify(places[source], places["wide"], base=places[kind] if kind else None, values=True)
    assert report.status == "same"


def test_one_wrong_bit_is_found(places: dict[str, Path], made: Made, tmp_path: Path) -> None:
    found = read_hf(places["out"])
    name = next(n for n in made.inside if n.endswith("experts.down_proj"))
    found[name].view(torch.int16)[1, 2, 3] ^= 1
    for file in places["out"].glob("*.json"):
        if "index" not in file.name and file.name != "vlconv.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    write_weights(tmp_path, found)
    for source, options in (("both", {}), ("adapter", {"base": places["base"]})):
        report = verify(places[source], tmp_path, **options)  # type: ignore[arg-type]
        assert [(d.tensor, d.count, d.first) for d in report.differences] == [(name, 1, (1, 2, 3))]
        assert name not in report.data["merged"]["tensors"]


def test_the_base_is_no_merged_model(places: dict[str, Path], made: Made) -> None:
    report = verify(places["adapter"], places["base"], base=places["mcore"])
    assert {d.tensor for d in report.differences} == set(made.inside)
    assert verify(places["out"], places["both"]).status == "same"


def test_nothing_comes_back_of_a_merge(places: dict[str, Path]) -> None:
    with pytest.raises(NotComparable, match="no round trip"):
        verify(places["both"])


def test_a_base_of_no_adapter(places: dict[str, Path]) -> None:
    with pytest.raises(NotComparable, match="neither side is one"):
        verify(places["both"], places["out"], base=places["base"])


@pytest.mark.parametrize("kind", ["base", "mcore"])
def test_a_peft_directory(places: dict[str, Path], made: Made, kind: str) -> None:
    """Against the model that it was merged into, and against the checkpoint that it was exported from."""
    report = verify(places["peft"], places["out"], base=places[kind])
    assert report.status == "same" and report.data["merged"]["tensors"] == changed(made)
    assert "in peft's names" in report.told["a_adapter"]
    assert verify(places["adapter"], places["peft"], base=places[kind]).status == "same"


def test_a_peft_directory_of_another_adapter(places: dict[str, Path], made: Made, tmp_path: Path) -> None:
    tensors = load_file(places["peft"] / "adapter_model.safetensors")
    name = next(n for n in tensors if "q_proj.lora_B" in n)
    tensors[name][5, 1] += 1
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((places["peft"] / "adapter_config.json").read_bytes())
    weight = name.removeprefix("base_model.model.").replace("lora_B.", "")
    for other in ("out", "adapter"):
        report = verify(tmp_path, places[other], base=places["base"])
        ((found, first),) = [(d.tensor, d.first) for d in report.differences]
        assert found == weight and first and first[0] == 5


def test_what_is_missing_or_the_same(places: dict[str, Path]) -> None:
    with pytest.raises(NotComparable, match=r"is a PEFT adapter, and not the model that it changes\n.*--base"):
        verify(places["peft"], places["out"])
    with pytest.raises(NotComparable, match="A and B are the same directory"):
        verify(places["peft"], places["peft"], base=places["base"])
    with pytest.raises(NotComparable, match="no round trip"):
        verify(places["peft"], base=places["base"])
