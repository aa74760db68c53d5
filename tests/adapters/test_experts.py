"""Adapters of experts: each its own or one for all, cut among expert-parallel and expert-tensor-parallel ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from lora import names, saving
from lora.making import RANK, Made, make, merged
from lora.saving import save
from mcore import ranks as mcore_ranks
from references import differing, read_hf
from tiny import write_tiny_hf
from trainers.saving import save as save_whole

from vlconv.converters import MismatchError, Report, mcore2hf

SAMPLED = 2

ALPHA = 6
RANKS = mcore_ranks.run  # that megatron-core is imported while other tests run: see conftest.py


def experts(kind: str, name: str = "mbridge") -> Made:
    return make(kind, name, lambda module: ".experts." in module)


def convert(tmp_path: Path, made: Made, adapter: Path, **options: object) -> tuple[list[str], Report]:
    """Names of tensors that are not what they have to be, and the report."""
    write_tiny_hf(tmp_path / "base", made.config, tensors=made.hf)
    report = mcore2hf(adapter, tmp_path / "out", base=tmp_path / "base", lora_alpha=ALPHA, **options)  # type: ignore[arg-type]
    return differing(read_hf(tmp_path / "out"), merged(made, ALPHA / RANK)), report


@pytest.mark.parametrize(
    ("kind", "name", "family", "ep", "etp", "apart"),
    [
        ("qwen3_vl_moe", "mbridge", "bridge", 2, 1, True),
        ("qwen3_vl_moe", "mbridge", "bridge", 1, 2, False),
        ("qwen3_moe", "megatron-lm", "swift", 2, 2, True),
        ("qwen3_5_moe", "mbridge", "bridge", 2, 2, False),
    ],
)
def test_however_they_are_cut(
    tmp_path: Path, kind: str, name: str, family: str, ep: int, etp: int, apart: bool
) -> None:
    made = experts(kind, name)
    by_rank = [saving.of_experts(made, family, (e, ep), (t, etp), apart) for e in range(ep) for t in range(etp)]
    assert convert(tmp_path, made, save(tmp_path / "adapter", by_rank))[0] == []


def shared(made: Made) -> Made:
    """The same adapter for all experts of a layer."""

    def first(t: torch.Tensor) -> torch.Tensor:
        return t[:1].expand_as(t).contiguous()

    a, b = ({name: first(t) for name, t in made_of.items()} for made_of in (made.a, made.b))
    return made._replace(a=a, b=b, hf_b={name: first(t) for name, t in made.hf_b.items()})


@pytest.mark.parametrize("axis", ["every slot", "one", "none"])
def test_one_for_all(tmp_path: Path, axis: str) -> None:
    """Saved for each expert, on an axis of one, or as older savers did without an axis."""
    made = shared(experts("qwen3_vl_moe"))
    keep = {"every slot": slice(None), "one": slice(0, 1), "none": 0}[axis]
    adapter = save_whole(tmp_path / "adapter", {name: t[keep] for name, t in names.bridge(made).items()})
    (adapter / "run_config.yaml").write_text(yaml.safe_dump({"peft": {"alpha": ALPHA, "share_expert_adapters": True}}))
    wrong, report = convert(tmp_path, made, adapter, strict=True)
    assert wrong == [] and not any("share one adapter" in warning for warning in report.warnings)


@pytest.mark.parametrize("ranks", [0, 2])
def test_copies_of_one_that_differ_are_told(tmp_path: Path, ranks: int) -> None:
    """Those of ranks that a trainer did not keep together; each expert keeps what it was trained with."""
    made = experts("qwen3_vl_moe")
    of_two = {m: torch.cat([t[:2], t[2:3], t[2:3]]) for m, t in made.a.items()}
    made = made._replace(a=of_two)
    if ranks:
        by_rank = [saving.of_experts(made, "bridge", (e, ranks), (0, 1), True) for e in range(ranks)]
        adapter = save(tmp_path / "adapter", by_rank)
    else:
        adapter = save_whole(tmp_path / "adapter", names.bridge(made))
    (adapter / "run_config.yaml").write_text(yaml.safe_dump({"peft": {"alpha": ALPHA}}))
    wrong, report = convert(tmp_path, made, adapter)
    told = [warning for warning in report.warnings if "share one adapter" in warning]
    assert wrong == [] and len(told) == len(made.a)
    assert told[0] == (
        "language_model.decoder.layers.0.mlp.experts.experts.linear_fc1: the experts share one adapter, and 3 "
        "different copies of it were saved; each expert keeps its own"
    )
    with pytest.raises(MismatchError, match="ranks disagree"):
        mcore2hf(adapter, tmp_path / "again", base=tmp_path / "base", strict=True)
    (adapter / "run_config.yaml").write_text(yaml.safe_dump({"peft": {"alpha": ALPHA, "share_expert_adapters": False}}))
    mcore2hf(adapter, tmp_path / "again", base=tmp_path / "base", strict=True)
