"""Multi-token-prediction heads of the models that have one: no output lacks what its config.json promises, and none has
one that is not promised.

What a config.json promises is enumerated by a formula of the tests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from hybrids import FIELD, Model, Tensors, head_names, model, promised, saved
from references import differing, read_hf
from refusing import edit_config, refused
from safetensors import safe_open
from tiny import tiny_config, write_tiny_hf

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
from vlconv.converters.errors import MismatchError, NotComparable, ReferenceFault

SAMPLED = 2

KINDS = {
    "qwen3_5": "mbridge-qwen3_5",
    "qwen3_5_moe": "mbridge",
    "qwen3_5_text": "megatron-lm",
    "qwen3_5_moe_text": "megatron-lm",
    "qwen3_next": "megatron-lm",
}
"""Models with a head, and a layout of each."""

STATED = {kind: None if kind == "qwen3_next" else 1 for kind in KINDS}
"""What their config.json says of it: that of Qwen3-Next has no word of it."""

COUNT = {"qwen3_5": 15, "qwen3_5_moe": 4 + 8 + 5 + 3 * 4}
"""Tensors of a head: with experts, 8 of attention and its norms, a router and a shared expert, and three of each."""


EITHER = [
    pytest.param(
        kind, legacy, marks=[] if (kind in COUNT) is not legacy or kind == "qwen3_next" else [pytest.mark.slow]
    )
    for kind in KINDS
    for legacy in (False, True)
]
"""Every model in both formats; of each the quicker test has one, but of Qwen3-Next."""
FEW = [pytest.param(kind, marks=[pytest.mark.slow] if kind.endswith("_text") else []) for kind in KINDS]


class Made:
    """Models and checkpoints of all kinds, made when first asked for. To be read only."""

    def __init__(self, root: Path) -> None:
        self.root, self.models, self.sources = root, dict[Any, Model](), dict[Any, Path]()

    def model(self, kind: str, **how: Any) -> Model:
        key = (kind, *sorted(how.items()))
        if key not in self.models:
            stated = {"promised": STATED[kind]} | how
            self.models[key] = model(self.root / f"model{len(self.models)}", kind, **stated)
        return self.models[key]

    def source(self, kind: str, *, head: bool = True, **how: Any) -> Path:
        key = (kind, head, *sorted(how.items()))
        if key not in self.sources:
            of = self.model(kind, head=head)
            self.sources[key] = saved(self.root / f"source{len(self.sources)}", KINDS[kind], of, **how)
        return self.sources[key]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def kept(directory: Path, *, stated: int | None = None) -> Tensors:
    """The tensors of an output, once they are those that its config.json promises."""
    config, tensors = json.loads((directory / "config.json").read_text()), read_hf(directory)
    says = promised(config)
    assert len(says) <= 1
    layers = next(iter(says), stated or 0)
    found = {name for name in tensors if name.startswith("mtp.")}
    wanted = [head_names(config, packed=packed) if layers else set() for packed in (False, True)]
    assert found in wanted
    if stated is not None and says:
        assert says == {stated}
    return tensors


def rest(tensors: Tensors) -> Tensors:
    return {name: t for name, t in tensors.items() if not name.startswith("mtp.")}


def head(tensors: Tensors) -> Tensors:
    return {name: t for name, t in tensors.items() if name.startswith("mtp.")}


class TestThere:
    def test_how_many_there_are(self, made: Made) -> None:
        for kind, count in COUNT.items():
            config = made.model(kind).config
            assert len(head_names(config)) == count == len(head(made.model(kind).tensors))
        large = {"text_config": {"num_experts": 256}}
        assert len(head_names(large)) == 785 and len(head_names(large, packed=True)) == 19

    @pytest.mark.parametrize(("kind", "legacy"), EITHER)
    def test_goes_along_to_hugging_face_and_back(self, made: Made, tmp_path: Path, kind: str, legacy: bool) -> None:
        of, source = made.model(kind), made.source(kind, legacy=legacy, inside="transformer_layer")
        asked = Mcore2HfOptions(reference=of.directory, mtp="require")
        report = mcore2hf(source, tmp_path / "hf", asked)
        assert differing(kept(tmp_path / "hf", stated=1), of.tensors) == []
        assert "1 layers of multi-token prediction" in report.told["model"]
        assert not {"carried", "left_behind"} & report.told.keys()
        hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(mtp="require"))
        inside = [n for n in dcp.shapes(tmp_path / "mcore/release") if "mtp.layers.0." in n]
        assert inside and not any("mtp_model_layer" in n for n in inside)
        mcore2hf(tmp_path / "mcore", tmp_path / "again")
        assert differing(kept(tmp_path / "again", stated=1), of.tensors) == []
        for pair in ((source, tmp_path / "hf"), (tmp_path / "mcore", tmp_path / "hf"), (source, tmp_path / "mcore")):
            report = verify(*pair, VerifyOptions(references=(of.directory,)))
            assert (report.status, report.differences) == ("same", [])

    @pytest.mark.parametrize(("kind", "legacy"), [("qwen3_5", True), ("qwen3_5_moe", False), ("qwen3_next", True)])
    def test_under_the_name_of_newer_versions(self, made: Made, tmp_path: Path, kind: str, legacy: bool) -> None:
        of, source = made.model(kind), made.source(kind, legacy=legacy, inside="mtp_model_layer")
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
        assert differing(kept(tmp_path / "hf", stated=1), of.tensors) == []
        mcore2mcore(source, tmp_path / "mcore", Mcore2McoreOptions(reference=of.directory))
        keys = dcp.shapes(tmp_path / "mcore/release")
        assert any(".transformer_layer." in n for n in keys) and not any("mtp_model_layer" in n for n in keys)
        mcore2hf(tmp_path / "mcore", tmp_path / "again")
        assert differing(kept(tmp_path / "again", stated=1), of.tensors) == []

    def test_half_of_it_under_each_name(self, made: Made, tmp_path: Path) -> None:
        of = made.model("qwen3_5")

        def edit(tensors: Tensors) -> Tensors:
            return {n.replace("transformer_layer.mlp", "mtp_model_layer.mlp"): t for n, t in tensors.items()}

        source = saved(tmp_path / "saved", "mbridge", of, edit=edit)
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
        assert differing(kept(tmp_path / "hf", stated=1), of.tensors) == []

    def test_twice_under_both_names(self, made: Made, tmp_path: Path) -> None:
        of = made.model("qwen3_5")

        def edit(tensors: Tensors) -> Tensors:
            return tensors | {n.replace("transformer_layer", "mtp_model_layer"): t for n, t in tensors.items()}

        source = saved(tmp_path / "saved", "mbridge", of, edit=edit)
        says = "8 not expected:"
        asked = Mcore2HfOptions(reference=of.directory)
        refused(mcore2hf, source, tmp_path / "hf", asked, fault=MismatchError, says=says)

    @pytest.mark.parametrize("gone", ["eh_proj.weight", "transformer_layer.mlp.linear_fc2.weight"])
    def test_a_part_of_it_is_no_head(self, made: Made, tmp_path: Path, gone: str) -> None:
        of = made.model("qwen3_5")
        source = saved(
            tmp_path / "saved", "mbridge", of, edit=lambda ts: {n: t for n, t in ts.items() if not n.endswith(gone)}
        )
        asked = Mcore2HfOptions(reference=of.directory)
        refused(mcore2hf, source, tmp_path / "hf", asked, fault=MismatchError, says=("1 missing:", gone))
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory, mtp="drop"))
        assert differing(kept(tmp_path / "hf", stated=0), rest(of.tensors)) == []


class TestNotThere:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if STATED[kind]])
    def test_a_promise_is_refused_naming_both_ways(self, made: Made, tmp_path: Path, kind: str) -> None:
        source, of = made.source(kind, head=False), made.model(kind)
        for command, options in ((mcore2hf, Mcore2HfOptions), (mcore2mcore, Mcore2McoreOptions)):
            for asked in (None, "require"):
                error = refused(
                    command,
                    source,
                    tmp_path / "out",
                    options(reference=of.directory, mtp=asked),
                    fault=MismatchError,
                    says=f"promises a multi-token-prediction head ({FIELD} is 1), and the checkpoint holds none",
                )
                assert "--mtp carry" in error.hint and "--mtp drop" in error.hint
        with pytest.raises(NotComparable, match="promises a multi-token-prediction head"):
            verify(source, of.directory, VerifyOptions(references=(of.directory,)))

    def test_a_config_without_a_word_promises_none(self, made: Made, tmp_path: Path) -> None:
        source, of = made.source("qwen3_next", head=False), made.model("qwen3_next")
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=of.directory))
        assert differing(kept(tmp_path / "hf"), rest(of.tensors)) == []
        asked = Mcore2HfOptions(reference=of.directory, mtp="require")
        refused(mcore2hf, source, tmp_path / "out", asked, fault=MismatchError, says="there is no multi-token")

    @pytest.mark.parametrize(("kind", "legacy"), EITHER)
    def test_carried(self, made: Made, tmp_path: Path, kind: str, legacy: bool) -> None:
        """Byte for byte from the shards of the reference that hold it; the others need not be here."""
        source, trained = made.source(kind, head=False, legacy=legacy), made.model(kind, head=False)
        other = made.model(kind, seed=7, shards=4)
        reference = tmp_path / "reference"
        shutil.copytree(other.directory, reference)
        holding = only_shards(reference, "mtp.")
        asked: dict[str, Any] = {"reference": reference, "mtp": "carry"}
        report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(**asked))
        union = trained.tensors | head(other.tensors)
        assert differing(kept(tmp_path / "hf", stated=1), union) == []
        told = report.data["carried"]
        assert told["prefixes"] == {"mtp.": len(head(other.tensors))} and told["untrained"] is True
        assert told["files"].keys() == holding
        mcore2mcore(source, tmp_path / "mcore", Mcore2McoreOptions(**asked))
        mcore2hf(tmp_path / "mcore", tmp_path / "again", Mcore2HfOptions(reference=trained.directory))
        assert differing(kept(tmp_path / "again", stated=1), union) == []
        options = VerifyOptions(references=(reference,), mtp="carry")
        for target in ("hf", "mcore"):
            report = verify(source, tmp_path / target, options)
            assert (report.status, report.differences) == ("same", [])
        assert report.data["tensors"] == len(union)

    def test_a_carried_head_is_compared_bit_for_bit(self, made: Made, tmp_path: Path) -> None:
        source, other = made.source("qwen3_5", head=False), made.model("qwen3_5", seed=7)
        asked = Mcore2HfOptions(reference=other.directory, mtp="carry")
        mcore2hf(source, tmp_path / "hf", asked)
        found = read_hf(tmp_path / "hf")
        found["mtp.fc.weight"].view(torch.int16)[3, 5] ^= 1
        from safetensors.torch import save_file

        save_file(found, tmp_path / "hf/model.safetensors", metadata={"format": "pt"})
        report = verify(source, tmp_path / "hf", VerifyOptions(references=(other.directory,), mtp="carry"))
        assert [(d.tensor, d.count, d.first) for d in report.differences] == [("mtp.fc.weight", 1, (3, 5))]

    @pytest.mark.parametrize("what", ["none", "part", "unweighted"])
    def test_a_reference_that_has_none(self, made: Made, tmp_path: Path, what: str) -> None:
        source = made.source("qwen3_5", head=False)
        reference = model(
            tmp_path / "reference", "qwen3_5", head=what == "part", weights=what != "unweighted"
        ).directory
        if what == "part":
            tensors = read_hf(reference)
            del tensors["mtp.layers.0.mlp.up_proj.weight"]
            from tiny import write_weights

            write_weights(reference, tensors)
        says = {
            "none": "no tensor whose name begins with 'mtp.'",
            "part": "lack mtp.layers.0.mlp.up_proj.weight",
            "unweighted": "has no safetensors weights to carry tensors from",
        }
        asked = Mcore2HfOptions(reference=reference, mtp="carry")
        refused(mcore2hf, source, tmp_path / "hf", asked, fault=ReferenceFault, says=says[what])


class TestDropped:
    @pytest.mark.parametrize("kind", FEW)
    @pytest.mark.parametrize("there", [False, True])
    def test_tensors_and_promise(self, made: Made, tmp_path: Path, kind: str, there: bool) -> None:
        source, of = made.source(kind, head=there), made.model(kind)
        options: dict[str, Any] = {"reference": of.directory, "mtp": "drop"}
        report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(**options))
        assert differing(kept(tmp_path / "hf"), rest(of.tensors)) == []
        says = promised(json.loads((tmp_path / "hf/config.json").read_text()))
        assert says == (set() if STATED[kind] is None else {0})
        assert bool(report.data.get("left_behind")) == there
        mcore2mcore(source, tmp_path / "mcore", Mcore2McoreOptions(**options))
        assert not any("mtp." in n for n in dcp.shapes(tmp_path / "mcore/release"))
        mcore2hf(tmp_path / "mcore", tmp_path / "again")  # with the config.json beside it
        assert differing(kept(tmp_path / "again"), rest(of.tensors)) == []
        compared = VerifyOptions(references=(of.directory,), mtp="drop")
        assert verify(source, tmp_path / "hf", compared).status == "same"

    def test_a_copy_of_the_field_at_the_top(self, made: Made, tmp_path: Path) -> None:
        source = made.source("qwen3_5")
        reference = model(tmp_path / "reference", "qwen3_5", weights=False, **{FIELD: 1}).directory
        assert promised(json.loads((reference / "config.json").read_text())) == {1}
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=reference, mtp="drop"))
        config = json.loads((tmp_path / "hf/config.json").read_text())
        assert (config[FIELD], config["text_config"][FIELD]) == (0, 0)
        kept(tmp_path / "hf", stated=0)

    @pytest.mark.parametrize("kind", FEW)
    def test_from_a_hugging_face_directory(self, made: Made, tmp_path: Path, kind: str) -> None:
        of = made.model(kind)
        hf2mcore(of.directory, tmp_path / "mcore", Hf2McoreOptions(mtp="drop"))
        assert not any("mtp." in n for n in dcp.shapes(tmp_path / "mcore/release"))
        assert promised(json.loads((tmp_path / "mcore/huggingface/config.json").read_text())) <= {0}
        mcore2hf(tmp_path / "mcore", tmp_path / "hf")
        assert differing(kept(tmp_path / "hf"), rest(of.tensors)) == []

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if STATED[kind]])
    def test_what_transformers_saved_has_none(self, made: Made, tmp_path: Path, kind: str) -> None:
        """It drops the head's tensors, and config.json still promises them."""
        of = made.model(kind, head=False)
        error = refused(
            hf2mcore,
            of.directory,
            tmp_path / "mcore",
            fault=MismatchError,
            says=f"config.json promises a multi-token-prediction head ({FIELD} is 1)",
            hint="--mtp drop",
        )
        assert "carry" not in error.hint
        hf2mcore(of.directory, tmp_path / "mcore", Hf2McoreOptions(mtp="drop"))
        mcore2hf(tmp_path / "mcore", tmp_path / "hf")
        assert differing(kept(tmp_path / "hf", stated=0), of.tensors) == []


class TestNotPromised:
    @pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_5_moe", "qwen3_next"])
    def test_is_refused_unless_it_is_dropped(self, made: Made, tmp_path: Path, kind: str) -> None:
        source, of = made.source(kind), made.model(kind)
        reference = model(tmp_path / "reference", kind, promised=0, weights=False).directory
        asked: dict[str, Any] = {"reference": reference}
        says = f"holds a multi-token-prediction head, and the reference's config.json promises none ({FIELD})"
        for wanted in (None, "require"):
            options = Mcore2HfOptions(**asked, mtp=wanted)
            refused(mcore2hf, source, tmp_path / "hf", options, fault=MismatchError, says=says, hint="--mtp drop")
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(**asked, mtp="drop"))
        assert differing(kept(tmp_path / "hf", stated=0), rest(of.tensors)) == []

    def test_nor_in_a_hugging_face_directory(self, made: Made, tmp_path: Path) -> None:
        of = model(tmp_path / "hf", "qwen3_5", promised=0)
        refused(hf2mcore, of.directory, tmp_path / "mcore", fault=MismatchError, says="promises none")

    def test_a_field_of_null_is_no_word(self, made: Made, tmp_path: Path) -> None:
        of = made.model("qwen3_5")
        shutil.copytree(of.directory, tmp_path / "reference")
        edit_config(tmp_path / "reference", lambda config: config["text_config"].update({FIELD: None}))
        mcore2hf(made.source("qwen3_5"), tmp_path / "hf", Mcore2HfOptions(reference=tmp_path / "reference"))
        assert differing(kept(tmp_path / "hf", stated=1), of.tensors) == []


class TestPacked:
    """Qwen3.6 packs the experts of its head, and no field of config.json says it."""

    def test_read_from_hugging_face(self, made: Made, tmp_path: Path) -> None:
        packed, apart = made.model("qwen3_5_moe", packed=True), made.model("qwen3_5_moe")
        assert len(head(packed.tensors)) == COUNT["qwen3_5_moe"] - 10
        hf2mcore(packed.directory, tmp_path / "mcore")
        mcore2hf(tmp_path / "mcore", tmp_path / "hf")
        assert differing(kept(tmp_path / "hf", stated=1), rest(apart.tensors) | unpacked(packed.tensors)) == []
        assert verify(packed.directory, tmp_path / "hf").status == "same"

    @pytest.mark.parametrize(
        ("packs", "experts", "expected"),
        [(True, "hub", True), (True, "per-expert", False), (False, "hub", False), (False, "per-expert", False)],
    )
    def test_written_as_the_reference_has_them(
        self, made: Made, tmp_path: Path, packs: bool, experts: Any, expected: bool
    ) -> None:
        source, reference = made.source("qwen3_5_moe"), made.model("qwen3_5_moe", packed=packs, seed=3)
        asked = Mcore2HfOptions(reference=reference.directory, experts=experts)
        mcore2hf(source, tmp_path / "hf", asked)
        found, of = kept(tmp_path / "hf", stated=1), made.model("qwen3_5_moe")
        assert ("mtp.layers.0.mlp.experts.gate_up_proj" in found) is expected
        assert ("model.language_model.layers.0.mlp.experts.gate_up_proj" in found) is (experts == "hub")
        assert differing(unpacked(found), head(of.tensors)) == []

    def test_each_by_itself_where_the_reference_has_no_weights(self, made: Made, tmp_path: Path) -> None:
        reference = model(tmp_path / "reference", "qwen3_5_moe", weights=False)
        mcore2hf(made.source("qwen3_5_moe"), tmp_path / "hf", Mcore2HfOptions(reference=reference.directory))
        assert differing(kept(tmp_path / "hf", stated=1), made.model("qwen3_5_moe").tensors) == []

    @pytest.mark.parametrize("packs", [True, False])
    @pytest.mark.parametrize("experts", ["hub", "per-expert"])
    def test_carried_as_the_reference_spells_them(self, made: Made, tmp_path: Path, packs: bool, experts: Any) -> None:
        source, other = made.source("qwen3_5_moe", head=False), made.model("qwen3_5_moe", packed=packs, seed=3)
        mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=other.directory, mtp="carry", experts=experts))
        assert differing(head(kept(tmp_path / "hf", stated=1)), head(other.tensors)) == []
        mcore2mcore(source, tmp_path / "mcore", Mcore2McoreOptions(reference=other.directory, mtp="carry"))
        mcore2hf(tmp_path / "mcore", tmp_path / "again")
        assert differing(head(kept(tmp_path / "again", stated=1)), unpacked(other.tensors)) == []


def unpacked(tensors: Tensors) -> Tensors:
    """The head, with its experts each by itself."""
    found = head(tensors)
    at = "mtp.layers.0.mlp.experts."
    if f"{at}gate_up_proj" not in found:
        return found
    both, down = found.pop(f"{at}gate_up_proj"), found.pop(f"{at}down_proj")
    for e in range(len(both)):
        gate, up = both[e].chunk(2)
        found |= {
            f"{at}{e}.gate_proj.weight": gate,
            f"{at}{e}.up_proj.weight": up,
            f"{at}{e}.down_proj.weight": down[e],
        }
    return found


def only_shards(directory: Path, prefix: str) -> set[str]:
    """Take away the files of weights that hold no tensor whose name begins so; the names of those that stay."""
    stay = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if any(name.startswith(prefix) for name in file.keys()):  # noqa: SIM118  # no mapping
                stay.add(path.name)
        if path.name not in stay:
            path.unlink()
    assert stay and len(stay) < 4
    return stay


@pytest.mark.parametrize(("file_format", "told"), [("torch", True), ("torch_dist", False)])
def test_rank_files_are_told_for_whom_they_are(tmp_path: Path, file_format: Any, told: bool) -> None:
    """megatron-core 0.19 calls the head's layer otherwise there."""
    write_tiny_hf(tmp_path / "hf", tiny_config("qwen3_5_text"))
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(format=file_format))
    assert any("0.19 calls it mtp_model_layer" in line for line in report.warnings) is told
