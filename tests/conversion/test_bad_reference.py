"""References and statements that contradict a Megatron checkpoint:
each refused, naming field and tensor, with nothing written.
"""

from __future__ import annotations

import argparse
import shutil

import pytest
import torch
from references import read_hf
from refusing import edit_config, edit_metadata, refused
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError, MismatchError, ReferenceFault, UnsupportedError
from vlconv.converters.models import REFUSED

OUTPUT = "language_model.output_layer.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model in both forms: hf/ and mcore/, which states nothing of itself, its vocabulary padded from 300 to 384
    rows.
    """
    work = tmp_path_factory.mktemp("model")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore", Hf2McoreOptions(make_vocab_size_divisible_by=128))
    (work / "mcore" / "release" / "run_config.yaml").unlink()
    return work


@pytest.fixture
def work(tmp_path, model):
    """A copy of it to contradict."""
    shutil.copytree(model / "mcore", tmp_path / "mcore")
    return tmp_path


@pytest.fixture
def release(work):
    return work / "mcore" / "release"


def no(work, **expected):
    options = expected.pop("options", None)
    return refused(mcore2hf, work / "mcore", work / "out", *([options] if options else []), **expected)


class TestReference:
    def reference(self, work, config, **how):
        write_tiny_hf(work / "reference", config, **how)
        return Mcore2HfOptions(reference=str(work / "reference"))

    def test_of_another_model(self, work):
        options = self.reference(work, tiny_config("qwen2_5_vl"))
        no(
            work,
            options=options,
            fault=MismatchError,
            says=("layout mbridge is one of qwen3_vl, qwen3_vl_moe", "the reference is a qwen2_5_vl"),
            hint="reference",
        )

    def test_of_a_mixture_of_experts(self, work):
        no(
            work,
            options=self.reference(work, tiny_config("qwen3_vl_moe")),
            fault=MismatchError,
            says="the reference has experts, the checkpoint has none",
        )

    @pytest.mark.parametrize(
        ("changes", "says", "hint"),
        [
            (
                {"text": {"num_hidden_layers": 5}},
                "has 4 decoder layers where the reference's text_config.num_hidden_layers is 5",
                "",
            ),
            (
                {"text": {"num_hidden_layers": 3}},
                "has 4 decoder layers where the reference's text_config.num_hidden_layers is 3",
                "",
            ),
            ({"vision": {"depth": 6}}, "has 4 vision blocks where the reference's vision_config.depth is 6", ""),
            (
                {"text": {"intermediate_size": 100}},
                "[192, 64]; the config makes it [200, 64]",
                "text_config.intermediate_size = 100",
            ),
            (
                {"text": {"num_key_value_heads": 2}},
                "[256, 64]; the config makes it [192, 64]",
                "text_config.num_key_value_heads = 2",
            ),
            ({"text": {"head_dim": 32}}, "the config makes it", "text_config.head_dim = 32"),
            ({"vision": {"intermediate_size": 50}}, "the config makes it", "vision_config.intermediate_size = 50"),
            (
                {"vision": {"out_hidden_size": 32}},
                "the config makes it [32, 128]",
                "vision_config.out_hidden_size = 32",
            ),
            (
                {"vision": {"patch_size": 8}},
                "patch_embed.proj.weight is [32, 3, 2, 4, 4]; the config makes it [32, 3, 2, 8, 8]",
                "vision_config.patch_size = 8",
            ),
            (
                {"vision": {"num_position_embeddings": 25}},
                "pos_embed.weight is [16, 32]; the config makes it [25, 32]",
                "vision_config.num_position_embeddings = 25",
            ),
            ({"text": {"hidden_size": 128}}, "the config makes it", "text_config.hidden_size = 128"),
            ({"vision": {"deepstack_visual_indexes": [0, 1, 2]}}, "6 missing:", ""),
        ],
    )
    def test_of_another_size(self, work, changes, says, hint):
        no(work, options=self.reference(work, tiny_config(**changes)), fault=MismatchError, says=says, hint=hint)

    @pytest.mark.parametrize(
        ("vocab", "says"), [(385, "the embedding has 384 rows"), (400, "no usual padding explains"), (383, "")]
    )
    def test_of_another_vocabulary(self, work, vocab, says):
        options = self.reference(work, tiny_config(text={"vocab_size": vocab}))
        if not says:  # 383 rounds up to 384 too: nothing in this checkpoint can tell
            assert mcore2hf(work / "mcore", work / "out", options).data["padding_rows"] == 1
            return
        no(
            work,
            options=options,
            fault=MismatchError,
            says=(says, f"config.json's vocab_size is {vocab}"),
            hint="--make-vocab-size-divisible-by",
        )

    def test_padding_that_an_option_explains(self, work):
        write_tiny_hf(work / "hf")
        hf2mcore(work / "hf", work / "odd", Hf2McoreOptions(make_vocab_size_divisible_by=64))
        refused(
            mcore2hf,
            work / "odd",
            work / "out",
            fault=MismatchError,
            says=("the embedding has 320 rows", "no usual padding"),
            hint="--make-vocab-size-divisible-by N",
        )
        report = mcore2hf(work / "odd", work / "out", Mcore2HfOptions(make_vocab_size_divisible_by=64))
        assert report.data["padding_rows"] == 20 and "--make-vocab-size-divisible-by" in report.data["padding_because"]

    def test_none(self, work):
        shutil.rmtree(work / "mcore" / "huggingface")
        no(work, fault=ReferenceFault, says="no Hugging Face reference beside the checkpoint", hint="--reference")

    def test_without_a_config(self, work):
        (work / "empty").mkdir()
        no(
            work,
            options=Mcore2HfOptions(reference=str(work / "empty")),
            fault=ReferenceFault,
            says=f"the reference {work / 'empty'} has no config.json",
            hint="Give the directory",
        )

    def test_that_is_not_there(self, work):
        no(
            work,
            options=Mcore2HfOptions(reference=str(work / "no such")),
            fault=ReferenceFault,
            says="does not exist",
            hint="Give a Hugging Face directory",
        )

    @pytest.mark.parametrize("kind", ["qwen2_vl", "qwen4_exp", "llama", "qwen3_vl ", "\x1b[31m"])
    def test_of_a_model_that_is_not_converted(self, work, kind):
        edit_config(work / "mcore" / "huggingface", lambda c: c.update(model_type=kind))
        error = no(
            work,
            fault=UnsupportedError,
            says=("config.json names", "which is not supported"),
            hint="Supported: qwen3_vl, qwen3_vl_moe, qwen2_5_vl",
        )
        assert REFUSED.get(kind, "model_type") in error.what

    def test_quantised(self, work):
        edit_config(work / "mcore" / "huggingface", lambda c: c.update(quantization_config={"quant_method": "fp8"}))
        no(work, fault=UnsupportedError, says="quantised weights of qwen3_vl (quantization_config)", hint="unquantised")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda c: c.pop("model_type"), "model_type is missing"),
            (lambda c: c["text_config"].pop("hidden_size"), "text_config.hidden_size is missing"),
            (lambda c: c["text_config"].pop("rope_theta"), "text_config.rope_theta is missing"),
            (
                lambda c: c["text_config"].update(num_hidden_layers="4"),
                "text_config.num_hidden_layers is 4, not an integer",
            ),
            (
                lambda c: c["text_config"].update(num_hidden_layers=10**9),
                "text_config.num_hidden_layers is 1000000000, not an integer from 1 to 4096",
            ),
            (lambda c: c["text_config"].update(hidden_size=0), "text_config.hidden_size is 0"),
            (
                lambda c: c["vision_config"].update(deepstack_visual_indexes=[0, 9]),
                "vision_config.deepstack_visual_indexes",
            ),
            (lambda c: c.update(vision_config=None), "vision_config is missing"),
            (
                lambda c: c["vision_config"].update(num_heads=5),
                "vision_config.hidden_size 32 is not a multiple of vision_config.num_heads 5",
            ),
        ],
    )
    def test_an_impossible_config(self, work, change, says):
        edit_config(work / "mcore" / "huggingface", change)
        no(work, fault=CorruptError, says=("config.json", says))

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1, "a": 2}', '{"a": NaN}', "\xff"])
    def test_no_json(self, work, text):
        (work / "mcore" / "huggingface" / "config.json").write_bytes(text.encode("latin-1"))
        no(work, fault=CorruptError, says="config.json")

    def test_a_tie_that_the_weights_contradict(self, work):
        edit_config(work / "mcore" / "huggingface", lambda c: c.update(tie_word_embeddings=True))
        no(
            work,
            fault=MismatchError,
            says=("tie_word_embeddings is true in config.json", "there is an output layer of its own"),
            hint="Set tie_word_embeddings to false",
        )

    def test_an_untied_config_for_tied_weights(self, work, release):
        edit_metadata(release, lambda m: m.state_dict_metadata.pop(OUTPUT))
        no(
            work,
            fault=MismatchError,
            says=("tie_word_embeddings is false in config.json", "there is no output layer"),
            hint="Set tie_word_embeddings to true",
        )


ARGS = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_query_groups": 4,
    "kv_channels": 16,
    "ffn_hidden_size": 96,
}


class TestContradictions:
    def state(self, release, **args):
        torch.save({"args": argparse.Namespace(**ARGS, **args), "checkpoint_version": 3.0}, release / "common.pt")

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            ({"rotary_base": 10000}, "text_config.rope_theta is 5000000, but the checkpoint's rotary_base is 10000"),
            ({"norm_epsilon": 1e-5}, "text_config.rms_norm_eps is 1e-06, but the checkpoint's norm_epsilon is 1e-05"),
            (
                {"mrope_section": [2, 3, 3]},
                "mrope_section is [4, 2, 2], but the checkpoint's mrope_section is [2, 3, 3]",
            ),
            ({"vocab_size": 320}, "text_config.vocab_size is 300, but the checkpoint's vocab_size is 320"),
            (
                {"vocab_size": 384, "padded_vocab_size": 384},
                "text_config.vocab_size is 300, but the checkpoint's vocab_size is 384",
            ),
            (
                {"untie_embeddings_and_output_weights": False},
                "tie_word_embeddings is False, but the checkpoint's untie_embeddings_and_output_weights is True",
            ),
        ],
    )
    def test_refused_unless_the_reference_is_trusted(self, work, release, args, says):
        self.state(release, **args)
        no(
            work,
            fault=MismatchError,
            says=("the reference config contradicts the checkpoint", says, "(the checkpoint's args)"),
            hint="--trust-reference",
        )
        report = mcore2hf(work / "mcore", work / "out", Mcore2HfOptions(trust_reference=True))
        assert [says in line for line in report.data["overridden"]] == [True]
        assert any("--trust-reference" in line for line in report.warnings)

    def test_several_are_listed(self, work, release):
        self.state(release, rotary_base=1, norm_epsilon=1)
        error = no(work, fault=MismatchError, says="rotary_base is 1")
        assert error.what.count("\n") == 2

    def test_trust_does_not_reach_shapes(self, work, release):
        self.state(release)
        write_tiny_hf(work / "reference", tiny_config(text={"intermediate_size": 100}))
        options = Mcore2HfOptions(reference=str(work / "reference"), trust_reference=True)
        no(
            work,
            options=options,
            fault=MismatchError,
            says="the config makes it [200, 64]",
            hint="text_config.intermediate_size = 100",
        )

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            ({"vocab_size": 299, "padded_vocab_size": 384}, "vocab_size"),
            (
                {"vocab_size": 300, "padded_vocab_size": 512},
                "args state padded_vocab_size 512, its embedding has 384 rows",
            ),
        ],
    )
    def test_the_vocabulary(self, work, release, args, says):
        self.state(release, **args)
        no(work, fault=MismatchError, says=says)

    def test_what_agrees(self, work, release):
        self.state(release, rotary_base=5000000, vocab_size=300, padded_vocab_size=384)
        report = mcore2hf(work / "mcore", work / "out")
        assert report.data["agrees_with"] == ["the checkpoint's args"]
        assert report.data["padding_because"] == "the checkpoint's args state vocab_size 300 and padded_vocab_size 384"


class TestOptions:
    def test_a_dtype_too_narrow(self, work, model, tmp_path):
        tensors = read_hf(model / "hf")
        tensors["model.language_model.norm.weight"][3] = 1e6
        shutil.copytree(model / "hf", work / "hf")
        write_weights(work / "hf", tensors)
        hf2mcore(work / "hf", work / "large")
        options = Mcore2HfOptions(dtype="float16")
        refused(
            mcore2hf,
            work / "large",
            work / "out",
            options,
            fault=MismatchError,
            says="model.language_model.norm.weight: holds numbers too large for float16",
            hint="--dtype",
        )

    def test_an_unknown_layout(self, work):
        no(
            work,
            options=Mcore2HfOptions(layout="mine"),
            fault=MismatchError,
            says="no layout is called 'mine'",
            hint="mbridge, ",
        )
