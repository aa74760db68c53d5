"""Gated attention in two row orders under the same names and shapes: no checkpoint is taken for one of the other's.

Each way to mix them up ends in words, or in exactly the right tensors. A trainer's decoder is put behind another's
prefixes and tower for it.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hybrids import Model, model, of_layers, saved
from references import differing, read_hf
from refusing import refused
from trainers import decoder, ranks
from trainers.decoder import Hybrid
from trainers.places import TRAINERS
from trainers.saving import save
from trainers.sizes import Sizes, sizes

from vlconv.converters import Mcore2HfOptions, mcore2hf
from vlconv.converters.errors import CorruptError, MismatchError, UnsupportedError, VlconvError

SAMPLED = 2

Tensors = dict[str, Any]
Names = Callable[[Sizes, Tensors], Tensors]

TOWERS = ("mbridge", "mbridge-qwen3_5", "roll")
"""Whose gated attention is megatron-core's, with a tower; Megatron-Bridge's names are those of `mbridge`."""

OURS = {
    "core": decoder.CORE,
    "swift": decoder.SWIFT,
    "decoupled": decoder.SWIFT_DECOUPLED,
    "swift-hf": decoder.SWIFT_HF,
    "slime": decoder.SLIME,
}
AT_HOME = {
    **{(name, "core"): "qwen3_5" for name in TOWERS},
    ("ms-swift-gdn", "swift"): "qwen3_5",
    ("ms-swift-gdn-decoupled", "decoupled"): "qwen3_5",
    ("ms-swift-hf-gdn", "swift-hf"): "qwen3_5",
    ("slime", "slime"): "qwen3_5",
    ("megatron-lm", "core"): "qwen3_5_text",
    ("slime-text", "slime"): "qwen3_5_text",
    ("ms-swift-text", "swift-hf"): "qwen3_5_text",
}
"""(whose prefixes and tower, whose decoder) -> a model of theirs."""

NAMES = {name: trainer.names for name, trainer in TRAINERS.items()}
LAYOUTS = [name for name, trainer in TRAINERS.items() if {"qwen3_5", "qwen3_5_text"} & set(trainer.kinds)]


def behind(name: str, hybrid: Hybrid) -> Names:
    """The decoder of a trainer behind the prefixes of another, beside the other's tower."""
    norms = decoder.LOCAL if hybrid is decoder.SWIFT_HF else decoder.TE

    def names(s: Sizes, hf: Tensors) -> Tensors:
        theirs = NAMES[name](s, hf)
        at = "language_model." if any(n.startswith("language_model.") for n in theirs) else ""
        rest = {n: t for n, t in theirs.items() if not n.startswith((f"{at}decoder.", f"{at}mtp."))}
        return rest | decoder.language(s, hf, at, norms, hybrid)

    return names


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Configs without weights, so that only the checkpoint shows anything."""
    root = tmp_path_factory.mktemp("references")
    return {
        kind: model(root / kind, kind, weights=False)
        for kind in ("qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_next")
    }


class Bench:
    """Saves a mixture and converts it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, references: dict[str, Model]) -> None:
        self.root, self.monkeypatch, self.references = root, monkeypatch, references

    def saved(self, name: str, hybrid: str, kind: str = "", *, tp: int = 0, edit: Any = dict) -> Path:
        """`tp` ranks' files; 0: torch_dist."""
        of = self.references[kind or home(name)]
        self.monkeypatch.setitem(TRAINERS, name, TRAINERS[name]._replace(names=behind(name, OURS[hybrid])))
        self.of, root = of, self.root / "saved"
        if not tp:
            return saved(root, name, of, edit=edit)
        root.mkdir()
        whole = (name,) if hybrid in ("swift-hf", "slime") else ()
        self.monkeypatch.setattr(ranks, "HF_DELTA_NETS", whole)
        return ranks.write_ranks(root, name, of.config, of.tensors, ranks.Grid([[of_layers(of)]], tp=tp))

    def options(self, **asked: Any) -> Mcore2HfOptions:
        return Mcore2HfOptions(reference=self.of.directory, **asked)

    def converts(self, source: Path, **asked: Any) -> Any:
        """To exactly the right tensors."""
        report = mcore2hf(source, self.root / "hf", self.options(**asked))
        assert differing(read_hf(self.root / "hf"), self.of.tensors) == []
        return report

    def refuses(self, source: Path, fault: type[VlconvError], says: str, hint: str = "", **asked: Any) -> None:
        refused(mcore2hf, source, self.root / "hf", self.options(**asked), fault=fault, says=says, hint=hint)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, references: dict[str, Model]) -> Bench:
    return Bench(tmp_path, monkeypatch, references)


def home(name: str) -> str:
    """A model that the layout is of."""
    return "qwen3_5" if "qwen3_5" in TRAINERS[name].kinds else "qwen3_5_text"


class TestAtHome:
    @pytest.mark.parametrize(("name", "hybrid", "kind"), [(*key, kind) for key, kind in AT_HOME.items()])
    def test_the_mixture_of_a_trainer_with_itself_is_its_own(
        self, references: dict[str, Model], name: str, hybrid: str, kind: str
    ) -> None:
        of = references[kind]
        ours, theirs = (f(sizes(of.config), of.tensors) for f in (behind(name, OURS[hybrid]), TRAINERS[name].names))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)

    def test_the_two_orders_differ_in_numbers_alone(self, references: dict[str, Model]) -> None:
        of = references["qwen3_5"]
        core, swift = (behind("mbridge-qwen3_5", OURS[x])(sizes(of.config), of.tensors) for x in ("core", "swift"))
        qkv = "language_model.decoder.layers.3.self_attention.linear_qkv.weight"
        head = "language_model.mtp.layers.0.transformer_layer.self_attention.linear_qkv.weight"
        for name in (qkv, head):
            assert core[name].shape == swift[name].shape and not torch.equal(core[name], swift[name])
            assert torch.equal(
                core[name].double().sum(0).sort()[0].round(decimals=3),
                swift[name].double().sum(0).sort()[0].round(decimals=3),
            )


class TestTorchDist:
    def test_in_cores_pieces_behind_ms_swifts_prefixes(self, bench: Bench) -> None:
        source = bench.saved("ms-swift-gdn", "core")
        says = "in_proj.weight is in pieces, as megatron-core's own module saves it"
        for layout in (None, "ms-swift-gdn"):
            bench.refuses(source, MismatchError, says, "Find out who saved it", layout=layout)

    @pytest.mark.parametrize("name", [*TOWERS, "megatron-lm"])
    def test_in_one_piece_behind_cores_prefixes(self, bench: Bench, name: str) -> None:
        source = bench.saved(name, "swift")
        says = "in_proj.weight is in one piece, as megatron-core's own module never saves it"
        for layout in (None, name):
            bench.refuses(source, MismatchError, says, "Find out who saved it", layout=layout)

    def test_a_text_model_with_experts_too(self, bench: Bench) -> None:
        bench.refuses(bench.saved("megatron-lm", "swift", "qwen3_next"), MismatchError, "is in one piece")

    @pytest.mark.parametrize("hybrid", ["decoupled", "swift-hf", "slime"])
    @pytest.mark.parametrize("name", TOWERS)
    def test_any_other_module_behind_cores_prefixes(self, bench: Bench, name: str, hybrid: str) -> None:
        source = bench.saved(name, hybrid)
        with pytest.raises((MismatchError, UnsupportedError), match=r"fit no layout|missing:"):
            mcore2hf(source, bench.root / "hf", bench.options())

    @pytest.mark.parametrize("hybrid", ["core", "swift"])
    @pytest.mark.parametrize("name", ["mbridge-qwen3_5", "ms-swift-gdn"])
    def test_some_layers_in_pieces_and_some_whole(self, bench: Bench, name: str, hybrid: str) -> None:
        other = behind(name, OURS["swift" if hybrid == "core" else "core"])

        def edit(tensors: Tensors) -> Tensors:
            mine = {n: t for n, t in tensors.items() if ".layers.1." not in n}
            theirs = other(sizes(bench.of.config), bench.of.tensors)
            return mine | {n: t for n, t in theirs.items() if ".decoder.layers.1." in n or ".blocks.1." in n}

        source = bench.saved(name, hybrid, edit=edit)
        wrong = "in pieces" if name == "ms-swift-gdn" else "in one piece"
        for layout in (None, name):
            bench.refuses(source, MismatchError, f"in_proj.weight is {wrong}", layout=layout)

    @pytest.mark.parametrize("tensor", ["in_proj", "conv1d"])
    def test_the_other_form_of_one_tensor(self, bench: Bench, tensor: str) -> None:
        """Of one layer, and of one of its two tensors that have pieces."""

        def edit(tensors: Tensors) -> Tensors:
            at = f"language_model.decoder.layers.1.self_attention.{tensor}.weight"
            pieces = [n for n in tensors if n.startswith(f"{at}.")]
            assert len(pieces) == {"in_proj": 6, "conv1d": 3}[tensor]
            whole = torch.cat([tensors[n] for n in pieces])
            return {n: t for n, t in tensors.items() if n not in pieces} | {at: whole}

        source = bench.saved("mbridge-qwen3_5", "core", edit=edit)
        bench.refuses(source, MismatchError, f"{tensor}.weight is in one piece")

    def test_both_forms_of_one_tensor(self, bench: Bench) -> None:
        def edit(tensors: Tensors) -> Tensors:
            at = "language_model.decoder.layers.1.self_attention.in_proj.weight"
            return tensors | {at: torch.cat([t for n, t in tensors.items() if n.startswith(f"{at}.")])}

        with pytest.raises(VlconvError, match=r"in_proj\.weight"):
            mcore2hf(bench.saved("mbridge-qwen3_5", "core", edit=edit), bench.root / "hf", bench.options())


class TestLegacy:
    """Rank files: a projection is one tensor in both, so the prefixes decide, and the norms speak against them."""

    @pytest.mark.parametrize("tp", [1, 2])
    @pytest.mark.parametrize("name", [*TOWERS, "megatron-lm"])
    def test_ms_swifts_behind_cores_prefixes(self, bench: Bench, name: str, tp: int) -> None:
        source = bench.saved(name, "swift", tp=tp)
        norms = [t.float().mean() for n, t in bench.of.tensors.items() if n.endswith(".linear_attn.norm.weight")]
        says = f"the output norms of its Gated DeltaNets are {sum(norms) / 3:.2f} on average"
        bench.refuses(source, MismatchError, says, f"--layout {name}")

    @pytest.mark.parametrize("tp", [1, 2])
    def test_cores_behind_ms_swifts_prefixes(self, bench: Bench, tp: int) -> None:
        source = bench.saved("ms-swift-gdn", "core", tp=tp)
        bench.refuses(source, MismatchError, "the output norms of its Gated DeltaNets are ", "--layout ms-swift-gdn")

    @pytest.mark.parametrize("name", ["mbridge-qwen3_5", "ms-swift-gdn"])
    def test_who_names_the_layout_is_believed(self, bench: Bench, name: str) -> None:
        """Norms may have been trained far away."""
        source = bench.saved(name, "swift" if name.startswith("mbridge") else "core", tp=2)
        report = mcore2hf(source, bench.root / "hf", bench.options(layout=name))
        assert report.data["layout_because"] == f"--layout {name}"
        assert "model.language_model.layers.3.self_attn.q_proj.weight" in differing(
            read_hf(bench.root / "hf"), bench.of.tensors
        )

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *((name, "qwen3_5") for name in (*TOWERS, "ms-swift-gdn", "ms-swift-gdn-decoupled", "ms-swift-hf-gdn")),
            ("slime", "qwen3_5_moe"),
            *((name, kind) for name in ("megatron-lm", "slime-text") for kind in ("qwen3_5_text", "qwen3_next")),
            ("ms-swift-text", "qwen3_next"),
        ],
    )
    def test_each_trainers_own(self, bench: Bench, name: str, kind: str) -> None:
        bench.of = bench.references[kind]
        report = bench.converts(saved(bench.root / "saved", name, bench.of, legacy=True))
        assert report.data["layout"] == name

    def test_trained_norms_between_both_are_no_word_against_it(self, bench: Bench) -> None:
        """Where the prefixes say it and the numbers are halfway, nothing speaks against it."""
        bench.of = halfway(bench.references["qwen3_5"])
        for name in ("ms-swift-gdn", "mbridge-qwen3_5"):
            source = saved(bench.root / name, name, bench.of, legacy=True)
            mcore2hf(source, bench.root / f"{name}-hf", bench.options())
            assert differing(read_hf(bench.root / f"{name}-hf"), bench.of.tensors) == []

    def test_the_norms_of_one_layer_do_not_hide_the_others(self, bench: Bench) -> None:
        """NaN in one of them, as diverged training leaves it."""
        of = bench.references["qwen3_5"]
        norm = "model.language_model.layers.0.linear_attn.norm.weight"
        broken = of._replace(tensors=of.tensors | {norm: torch.full_like(of.tensors[norm], float("nan"))})
        bench.references = {**bench.references, "qwen3_5": broken}
        source = bench.saved("mbridge-qwen3_5", "swift", tp=2)
        bench.refuses(source, MismatchError, "the output norms of its Gated DeltaNets are ")


def halfway(of: Model) -> Model:
    """With output norms about 0.62, which are exact minus one, too."""
    values = (0.5 + torch.arange(16) / 64).bfloat16()
    norms = {n: values.clone() for n in of.tensors if n.endswith(".linear_attn.norm.weight")}
    assert len(norms) == 3
    return of._replace(tensors=of.tensors | norms)


class TestFsdp:
    """fsdp_dtensor keeps a rank's projection behind the next one's, in one tensor; newer versions in pieces."""

    def save(self, bench: Bench, name: str, hybrid: str, split: str = "") -> Path:
        """`split`: in whose names what is in pieces stays so."""
        of = bench.of = bench.references["qwen3_5"]
        names = behind(name, OURS[hybrid])(sizes(of.config), of.tensors)
        whole: Tensors = {}
        for n, t in names.items():
            tensor = n.rpartition(".")[0]
            pieces = tensor.endswith((".in_proj.weight", ".conv1d.weight")) and not (split and split in n)
            at = tensor if pieces else n
            whole[at] = torch.cat([whole[at], t]) if at in whole else t
        args = Namespace(tensor_model_parallel_size=1)
        state = {f"model.module.{n}": t.contiguous() for n, t in whole.items()} | {"args": args}
        with warnings.catch_warnings(action="ignore"):
            dcp.save(state, checkpoint_id=bench.root / "saved", no_dist=True)
        return bench.root / "saved"

    @pytest.mark.parametrize(("name", "hybrid"), [("mbridge-qwen3_5", "core"), ("ms-swift-gdn", "swift")])
    def test_its_own(self, bench: Bench, name: str, hybrid: str) -> None:
        report = bench.converts(self.save(bench, name, hybrid))
        assert (report.data["format"], report.data["layout"]) == ("fsdp_dtensor", name)

    @pytest.mark.parametrize("split", [".self_attention.", ".in_proj."])
    def test_its_own_in_pieces(self, bench: Bench, split: str) -> None:
        source = self.save(bench, "mbridge-qwen3_5", "core", split)
        assert bench.converts(source).data["layout"] == "mbridge-qwen3_5"

    def test_cores_pieces_behind_ms_swifts_prefixes(self, bench: Bench) -> None:
        source = self.save(bench, "ms-swift-gdn", "core", ".self_attention.")
        for layout in (None, "ms-swift-gdn"):
            bench.refuses(source, MismatchError, "in_proj.weight is in pieces", layout=layout)

    @pytest.mark.parametrize("tensor", ["in_proj", "conv1d"])
    def test_pieces_in_some_layers_alone(self, bench: Bench, tensor: str) -> None:
        source = self.save(bench, "mbridge-qwen3_5", "core", f".layers.1.self_attention.{tensor}")
        bench.refuses(source, MismatchError, f"{tensor}.weight is in one piece")

    @pytest.mark.parametrize(("name", "hybrid"), [("mbridge-qwen3_5", "swift"), ("ms-swift-gdn", "core")])
    def test_the_others(self, bench: Bench, name: str, hybrid: str) -> None:
        source = self.save(bench, name, hybrid)
        bench.refuses(source, MismatchError, "the output norms of its Gated DeltaNets are ", f"--layout {name}")


class TestTwoTrainers:
    @pytest.mark.parametrize(
        ("one", "other", "kind"),
        [
            ("mbridge-qwen3_5", "ms-swift-gdn", "qwen3_5"),
            ("mbridge", "ms-swift-gdn", "qwen3_5"),
            ("roll", "ms-swift-gdn", "qwen3_5"),
            ("roll", "mbridge-qwen3_5", "qwen3_5"),
            ("ms-swift-gdn", "ms-swift-hf-gdn", "qwen3_5"),
            ("mbridge-qwen3_5", "slime", "qwen3_5"),
            ("megatron-lm", "slime-text", "qwen3_5_text"),
            ("megatron-lm", "ms-swift-text", "qwen3_5_text"),
        ],
    )
    def test_names_of_both_are_refused(
        self, bench: Bench, references: dict[str, Model], one: str, other: str, kind: str
    ) -> None:
        bench.of = of = references[kind]
        both = TRAINERS[one].names(sizes(of.config), of.tensors) | TRAINERS[other].names(sizes(of.config), of.tensors)
        save(bench.root / "saved", both)
        for layout in (None, one, other):
            with pytest.raises(
                (CorruptError, MismatchError, UnsupportedError), match=r"layout|not expected:|in pieces"
            ):
                mcore2hf(bench.root / "saved", bench.root / "hf", bench.options(layout=layout))


@pytest.mark.parametrize(("name", "hybrid"), AT_HOME)
def test_a_wrong_layout_by_name(bench: Bench, name: str, hybrid: str) -> None:
    """Each against each of the same model: in words, or the right tensors."""
    source = bench.saved(name, hybrid)
    kind = AT_HOME[name, hybrid]
    for layout in LAYOUTS:
        if layout not in (name, "language-model") and kind in TRAINERS[layout].kinds:
            bench.refuses(source, MismatchError, "missing:", "the layout right?", layout=layout)


RIGHT = {
    **{name: {"core"} for name in TOWERS},
    "ms-swift-gdn": {"swift", "decoupled", "swift-hf"},
    "slime": {"slime"},
    "megatron-lm": {"core", "slime", "swift-hf"},
}
"""Prefixes and tower -> the decoders that some trainer puts behind them."""


@pytest.mark.slow
@pytest.mark.parametrize("tp", [0, 1, 2])
@pytest.mark.parametrize("hybrid", OURS)
@pytest.mark.parametrize("name", RIGHT)
def test_every_decoder_behind_every_prefix_under_every_name(bench: Bench, name: str, hybrid: str, tp: int) -> None:
    source = bench.saved(name, hybrid, tp=tp)
    right = set()
    for layout in (None, *(layout for layout in LAYOUTS if home(name) in TRAINERS[layout].kinds)):
        target = bench.root / f"hf-{layout}"
        try:
            mcore2hf(source, target, bench.options(layout=layout))
        except VlconvError:
            assert not target.exists()
            continue
        believed = tp and layout and hybrid in ("core", "swift")  # whose ranks' keys show nothing
        right.add(layout)
        assert believed or differing(read_hf(target), bench.of.tensors) == []
    assert (None in right) == (hybrid in RIGHT[name])
