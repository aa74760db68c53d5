"""Which trainer's names a checkpoint carries: told apart from every other's, and what is refused, by name."""

from __future__ import annotations

from functools import cache
from itertools import combinations, permutations

import pytest
import torch
from tiny import tiny_config, tiny_shapes, write_tiny_hf
from trainers.places import TRAINERS, write
from trainers.saving import save
from trainers.sizes import sizes

from vlconv.converters import Mcore2HfOptions, mcore2hf
from vlconv.converters.errors import MismatchError, UnsupportedError, VlconvError
from vlconv.converters.layouts import LAYOUTS, detect
from vlconv.converters.layouts.refusals import refuse, stripped
from vlconv.converters.models import model_for
from vlconv.converters.tensors.rules import table
from vlconv.converters.tensors.spec import TensorSpec

CASES = [(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds]
SHARED = [
    (a, b, kind) for (a, kind), (b, other) in permutations(CASES, 2) if kind == other and {a, b} != {"hf", "hf-old"}
]  # these read each other's

DECODER = ("language_model.", "decoder.", "embedding.", "layers.")
"""What the language model's names begin with, whoever the trainer."""

CONFUSABLE = [
    ("mbridge-qwen2_5", "pai"),  # a projection after the vision decoder
    ("megatron-bridge-0.3", "roll"),  # vision_model.blocks.
    ("mindspeed-mm", "mindspeed-mm-canonical"),  # image_encoder. and text_decoder.
    ("hf", "megatron-bridge-qwen2_5"),  # visual.patch_embed.
    ("hf-old", "megatron-bridge-qwen2_5"),
    ("hf", "hf-old"),
    ("hf-old", "hf-text"),  # layers.
    ("hf", "slime"),
    ("hf-old", "slime"),
    ("megatron-bridge-qwen2_5", "slime"),
    ("megatron-bridge-0.3", "mbridge-qwen3_5"),
    ("roll", "mbridge-qwen3_5"),
    *combinations(("ms-swift", "ms-swift-gdn", "ms-swift-gdn-decoupled", "ms-swift-hf-gdn"), 2),  # visual.visual.
]
"""Pairs of which one's vision names meet a mark of the other: what else a layout is seen by must tell them apart."""

AMBIGUOUS = [
    ("mbridge", "pai"),
    ("megatron-bridge-0.3", "roll"),
    ("megatron-bridge-0.3", "mbridge"),
    ("megatron-bridge-qwen2_5", "ms-swift"),
    ("roll", "ms-swift"),
]


@cache
def tensors(name, kind):
    """A trainer's names, one per layer, without numbers."""
    config = tiny_config(kind)
    hf = {n: torch.empty(shape, dtype=torch.bfloat16, device="meta") for n, shape in tiny_shapes(config).items()}
    return {stripped(n): t for n, t in TRAINERS[name].names(sizes(config), hf).items()}


def specs(found):
    return {n: TensorSpec(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in found.items()}


class TestEveryLayout:
    @pytest.mark.parametrize(("name", "kind"), CASES)
    def test_is_seen_by_its_names_and_no_other_is(self, name, kind):
        found = tensors(name, kind)
        assert [layout.name for layout in LAYOUTS.values() if layout.fits(found)] == [name]
        assert detect(found) is LAYOUTS[name]
        refuse(specs(found))

    @pytest.mark.parametrize(("ours", "theirs", "kind"), SHARED)
    def test_its_names_are_not_complete_for_another(self, ours, theirs, kind):
        config = model_for(tiny_config(kind)).config(tiny_config(kind))
        expected = table(LAYOUTS[theirs].rules(config, 300)).left()
        assert expected.keys() != tensors(ours, kind).keys()

    @pytest.mark.parametrize("pair", AMBIGUOUS, ids="+".join)
    def test_two_at_once_are_refused(self, pair):
        kind = TRAINERS[pair[0]].kinds[0]
        with pytest.raises(UnsupportedError) as caught:
            detect({**tensors(pair[0], kind), **tensors(pair[1], kind)})
        assert "fit several layouts: " in caught.value.what and all(
            name in caught.value.what.splitlines()[0] for name in pair
        )
        assert "--layout NAME overrides" in caught.value.hint

    def test_which_pairs_share_a_mark(self):
        found = set()
        for (a, kind), (b, _) in permutations(CASES, 2):
            marks = [mark for mark in LAYOUTS[b].has if not mark.startswith(DECODER)]
            if a != b and any(name.startswith(tuple(marks)) for name in tensors(a, kind)):
                found.add(frozenset((a, b)))
        assert found == {frozenset(pair) for pair in CONFUSABLE}


class TestNoLayout:
    def test_an_unknown_trainer(self):
        found = {
            n.replace("language_model.", "llm.").replace("vision_model.", "vision_tower.")
            for n in tensors("mbridge", "qwen3_vl")
        }
        with pytest.raises(UnsupportedError) as caught:
            detect(found)
        assert (
            "fit no layout" in caught.value.what
            and "  vision_tower.decoder.…" in caught.value.what
            and "  llm.embedding.…" in caught.value.what
        )
        assert all(name in caught.value.hint for name in LAYOUTS)

    def test_names_of_a_stranger_are_shown_escaped_and_few(self):
        with pytest.raises(UnsupportedError) as caught:
            detect([f"vision\x1b[31m{i}.a" for i in range(50)])
        assert "\x1b" not in caught.value.what and caught.value.what.count("\n") == 10


class TestWrappers:
    @pytest.mark.parametrize(
        "prefix",
        [
            "",
            "module.",
            "module.module.",
            "model.",
            "model.module.",
            "model.module.module.",
            "module.model.module.",
            "model.model.",
        ],
    )
    def test_are_stripped(self, prefix):
        for name in (
            "language_model.decoder.final_layernorm.weight",
            "vision_model.pos_embed.weight",
            "decoder.layers.0.mlp.router.weight",
        ):
            assert stripped(prefix + name) == name

    @pytest.mark.parametrize(
        "name", ["modules.a", "model_a.b", "language_model.model.a", "vision_model.module.a", "amodel.b"]
    )
    def test_nothing_else_is(self, name):
        assert stripped(name) == name

    def test_one_tensor_behind_two_of_them(self, checkpoint):
        caught = checkpoint("mbridge", **{"module.vision_model.pos_embed.weight": (16, 32)})
        assert (
            isinstance(caught, MismatchError)
            and "are the same tensor behind different prefixes" in caught.what
            and "vision_model.pos_embed.weight" in caught.what
        )


@pytest.fixture
def checkpoint(tmp_path):
    """Saves a trainer's checkpoint with further tensors (a shape: new; None:
    taken away), tries to convert it, and gives the refusal.
    """

    def refusal(name, kind=None, layout=None, keep=True, reference=None, **changes):
        kind = kind or TRAINERS[name].kinds[0]
        write_tiny_hf(tmp_path / "reference", reference or tiny_config(kind))
        found = {n: torch.zeros(t.shape, dtype=t.dtype) for n, t in tensors(name, kind).items()} if keep else {}
        for n, change in changes.items():
            found[n] = torch.zeros(change, dtype=torch.bfloat16) if isinstance(change, tuple) else change
        save(tmp_path / "saved", {n: t for n, t in found.items() if t is not None})
        with pytest.raises(VlconvError) as caught:
            mcore2hf(
                tmp_path / "saved",
                tmp_path / "hf",
                Mcore2HfOptions(reference=str(tmp_path / "reference"), layout=layout),
            )
        assert sorted(p.name for p in tmp_path.iterdir()) == ["reference", "saved"]
        return caught.value

    return refusal


QKV = "language_model.decoder.layers.0.self_attention.linear_qkv"

REFUSED = [
    (
        "language_model.output_layer.weight",
        (1, 64),
        "[1, 64] has one row: this is a critic or reward model",
        "Only language models",
    ),
    ("v_head.summary.weight", (1, 64), "is the head of a critic or reward model", "Only language models"),
    ("value_head.weight", (2, 64), "is the head of a critic or reward model", "Only language models"),
    ("language_model.score.weight", (2, 64), "is the head of a critic or reward model", "Only language models"),
    (f"{QKV}.weight_scale_inv", (2, 1), "is a quantised weight", "plain bfloat16"),
    (
        "language_model.decoder.final_norm.weight",
        (64,),
        "belongs to Megatron's hybrid-model layout",
        "still in development",
    ),
]


class TestRefusedByName:
    @pytest.mark.parametrize(("name", "shape", "what", "hint"), REFUSED)
    def test_a_tensor_of_another_kind_of_model(self, checkpoint, name, shape, what, hint):
        caught = checkpoint("mbridge", **{name: shape})
        assert isinstance(caught, UnsupportedError)
        assert caught.what.startswith(name) and what in caught.what and hint in caught.hint

    @pytest.mark.parametrize("layout", ["roll", "mindspeed-mm"])
    def test_a_critic_of_another_layout(self, checkpoint, layout):
        name = next(n for n in tensors(layout, "qwen3_vl") if n.endswith("output_layer.weight"))
        assert "critic or reward model" in checkpoint(layout, "qwen3_vl", **{name: (1, 64)}).what

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn])
    def test_quantised_weights(self, checkpoint, dtype):
        caught = checkpoint("mbridge", **{f"{QKV}.weight": torch.zeros(256, 64, dtype=torch.uint8).to(dtype)})
        assert isinstance(caught, UnsupportedError)
        assert (
            f"{QKV}.weight has dtype {str(dtype).removeprefix('torch.')}" in caught.what
            and "unquantised" in caught.hint
        )

    def test_the_language_model_alone(self, checkpoint):
        caught = checkpoint(
            "mbridge", **{n: None for n in tensors("mbridge", "qwen3_vl") if n.startswith("vision_model.")}
        )
        assert isinstance(caught, MismatchError) and "language model of a qwen3_vl alone" in caught.what
        assert "--carry model.visual." in caught.hint

    def test_pai_qwen2(self, checkpoint):
        biases = {
            n.removesuffix("weight") + "bias": (32,)
            for n in tensors("mbridge-qwen2_5", "qwen2_5_vl")
            if n.startswith("vision_model") and "layer_norm" in n
        }
        assert len(biases) == 8
        caught = checkpoint("mbridge-qwen2_5", **biases)
        assert (
            isinstance(caught, UnsupportedError)
            and "Pai-Megatron-Patch's Qwen2-VL" in caught.what
            and "Qwen2-VL is not converted" in caught.hint
        )

    def test_a_checkpoint_of_the_optimizer_alone(self, checkpoint):
        caught = checkpoint(
            "mbridge",
            keep=False,
            **{"optimizer.state.fp32_param.language_model.embedding.word_embeddings.weight": (300, 64)},
        )
        assert isinstance(caught, UnsupportedError) and "holds no weights" in caught.what and "beside it" in caught.hint

    def test_leftovers_of_a_quantiser_are_ignored(self, tmp_path):
        config = tiny_config()
        hf = write_tiny_hf(tmp_path / "reference", config)
        found = TRAINERS["mbridge"].names(sizes(config), hf)
        save(
            tmp_path / "saved",
            found
            | {
                f"{QKV}.weight_quantizer._amax": torch.ones(1),
                f"{QKV}.input_amax": torch.ones(1),
                f"{QKV}.rotary.inv_freq": torch.ones(8),
            },
        )
        report = mcore2hf(
            tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(reference=str(tmp_path / "reference"), dry_run=True)
        )
        assert (
            report.data["ignored"].items() >= {"quantizer state": 2, "inv_freq": 1}.items()
            and sum(report.data["ignored"].values()) == 6
        )


class TestNames:
    def test_one_misspelled(self, checkpoint):
        right, wrong = f"{QKV.replace('qkv', 'proj')}.weight", f"{QKV.replace('qkv', 'porj')}.weight"
        caught = checkpoint("pai", **{right: None, wrong: (64, 128)})
        assert isinstance(caught, MismatchError)
        assert (
            f"1 missing:\n  {right}  (nearest: {wrong})\n1 not expected:\n  {wrong}  (nearest: {right})" in caught.what
        )

    def test_one_missing_and_its_three_nearest(self, checkpoint):
        gone = "language_model.decoder.layers.2.mlp.linear_fc2.weight"
        said = checkpoint("megatron-bridge-0.3", **{gone: None}).what
        assert f"1 missing:\n  {gone}  (nearest: " in said and "not expected" not in said
        near = said.split("(nearest: ")[1].rstrip(")").split(", ")
        assert len(set(near)) == 3 and all(
            len(n) == len(gone) and sum(a != b for a, b in zip(n, gone, strict=True)) == 1 for n in near
        )

    def test_many_are_counted(self, checkpoint):
        names = [n for n in tensors("ms-swift", "qwen2_5_vl") if ".merger." in n]
        said = checkpoint("ms-swift", "qwen2_5_vl", **dict.fromkeys(names), surplus=(3,)).what
        assert (
            len(names) == 5
            and "5 missing:" in said
            and "  … and 2 more" in said
            and "1 not expected:\n  surplus" in said
        )

    def test_a_whole_layer_missing(self, checkpoint):
        gone = [n for n in tensors("roll", "qwen3_vl") if n.startswith("decoder.layers.3.")]
        said = checkpoint("roll", "qwen3_vl", **dict.fromkeys(gone)).what
        assert "has 3 decoder layers where the reference's text_config.num_hidden_layers is 4" in said

    def test_a_whole_block_surplus(self, checkpoint):
        more = {
            n.replace(".3.", ".4."): tuple(t.shape)
            for n, t in tensors("mindspeed-mm", "qwen2_5_vl").items()
            if ".blocks.layers.3." in n
        }
        said = checkpoint("mindspeed-mm", "qwen2_5_vl", **more).what
        assert len(more) == 10 and "has 5 vision blocks where the reference's vision_config.depth is 4" in said


class TestLayoutOption:
    def test_is_recorded(self, tmp_path):
        config = tiny_config()
        write(tmp_path / "saved", "pai", config, write_tiny_hf(tmp_path / "saved" / "huggingface", config))
        report = mcore2hf(tmp_path / "saved", tmp_path / "hf", Mcore2HfOptions(layout="pai", dry_run=True))
        assert (report.data["layout"], report.data["layout_because"]) == ("pai", "--layout pai")

    @pytest.mark.parametrize(
        ("ours", "theirs"), [("mbridge", "pai"), ("roll", "megatron-bridge-0.3"), ("megatron-bridge-0.3", "mbridge")]
    )
    def test_a_wrong_one(self, checkpoint, ours, theirs):
        caught = checkpoint(ours, layout=theirs)
        assert isinstance(caught, MismatchError)
        assert (
            "missing:" in caught.what
            and "not expected:" in caught.what
            and "nearest: " in caught.what
            and "the layout right?" in caught.hint
        )

    def test_overrides_what_is_ambiguous_but_not_what_is_complete(self, checkpoint):
        more = {
            n: tuple(t.shape)
            for n, t in tensors("ms-swift", "qwen2_5_vl").items()
            if n.startswith("visual.visual.merger.")
        }
        caught = checkpoint("megatron-bridge-qwen2_5", layout="megatron-bridge-qwen2_5", **more)
        assert (
            isinstance(caught, MismatchError)
            and "5 not expected:\n  visual.visual.merger." in caught.what
            and "missing" not in caught.what
        )

    def test_an_unknown_one(self, checkpoint):
        caught = checkpoint("mbridge", layout="megatron")
        assert caught.what == "no layout is called 'megatron'" and all(name in caught.hint for name in LAYOUTS)

    @pytest.mark.parametrize(
        ("layout", "reference", "says"),
        [
            ("mbridge", "qwen3_vl_moe", "the reference has experts, the checkpoint has none"),
            ("megatron-lm", "qwen3_moe", "the reference has experts, the checkpoint has none"),
            ("megatron-lm", "qwen2", "the reference has biases of query, key and value, the checkpoint has none"),
        ],
    )
    def test_a_reference_of_another_family(self, checkpoint, layout, reference, says):
        model = "qwen3_vl" if layout == "mbridge" else "qwen3"
        caught = checkpoint(layout, model, reference=tiny_config(reference))
        assert isinstance(caught, MismatchError)
        assert caught.what.endswith(says) and "\n" not in caught.what

    def test_a_checkpoint_of_another_family(self, checkpoint):
        caught = checkpoint("mbridge", "qwen3_vl_moe", reference=tiny_config("qwen3_vl"))
        assert caught.what.endswith("the checkpoint has experts, the reference has none")

    def test_one_of_another_model(self, checkpoint):
        caught = checkpoint("roll", "qwen3_vl", layout="megatron-bridge-qwen2_5")
        assert "megatron-bridge-qwen2_5 is one of qwen2_5_vl; the reference is a qwen3_vl" in caught.what


class TestTies:
    def test_ms_swift_built_tied_by_mistake(self, checkpoint):
        caught = checkpoint("ms-swift", "qwen3_vl_moe", **{"language_model.output_layer.weight": None})
        assert isinstance(caught, MismatchError)
        assert (
            "tie_word_embeddings is false in config.json, but there is no output layer among the weights" in caught.what
        )
        assert (
            "built" not in caught.what.partition("config.json: ")[2] and "Qwen3-VL-MoE tied by mistake" in caught.hint
        )

    def test_of_another_trainer(self, checkpoint):
        caught = checkpoint("pai", "qwen3_vl_moe", **{"language_model.output_layer.weight": None})
        assert (
            "there is no output layer among the weights" in caught.what
            and "Set tie_word_embeddings to true" in caught.hint
        )

    def test_an_output_layer_though_tied(self, checkpoint):
        caught = checkpoint("mbridge", reference=tiny_config(tied=True))
        assert (
            "reference/config.json: tie_word_embeddings is true in config.json, but there is an output layer of its own"
            in caught.what
        )
        assert "Set tie_word_embeddings to false" in caught.hint and "--reference that was trained" in caught.hint
