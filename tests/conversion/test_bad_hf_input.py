"""Damaged and contradictory Hugging Face directories:
each refused by hf2mcore, saying which file or tensor and what to do, with nothing written.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from references import read_hf
from refusing import edit_config, refused
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters import Hf2McoreOptions, hf2mcore
from vlconv.converters.errors import CorruptError, MismatchError, NotACheckpoint, UnsupportedError
from vlconv.converters.models import REFUSED

INDEX, SHARD = "model.safetensors.index.json", "model-00002-of-00003.safetensors"
NORM = "model.language_model.norm.weight"
LAYER = "model.language_model.layers.1"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models in three shards, by model_type."""
    work = tmp_path_factory.mktemp("models")
    for kind in ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"):
        write_tiny_hf(work / kind, tiny_config(kind), shards=3)
    return work


@pytest.fixture
def hf(tmp_path, models):
    """A copy of the dense one to damage."""
    shutil.copytree(models / "qwen3_vl", tmp_path / "hf")
    return tmp_path / "hf"


def no(hf, options=None, **expected):
    return refused(hf2mcore, hf, hf.parent / "out", *([options] if options else []), **expected)


def rewritten(hf, change):
    """The same directory with other tensors, in one file."""
    tensors = read_hf(hf)
    for path in hf.glob("model*"):
        path.unlink()
    change(tensors)
    write_weights(hf, tensors)


class TestNoModel:
    def test_the_undamaged_copy_is_fine(self, hf):
        assert hf2mcore(hf, hf.parent / "out").status == "done"

    def test_no_directory(self, tmp_path):
        no(tmp_path / "gone", fault=CorruptError, says=f"{tmp_path / 'gone' / 'config.json'} is missing")

    def test_a_megatron_checkpoint(self, hf):
        hf2mcore(hf, hf.parent / "mcore")
        no(hf.parent / "mcore", fault=NotACheckpoint, says="a Megatron checkpoint, no Hugging", hint="vlconv mcore2hf")

    def test_no_weights(self, hf):
        for path in hf.glob("model*"):
            path.unlink()
        no(
            hf,
            fault=NotACheckpoint,
            says=f"{hf}: neither {INDEX} nor model.safetensors",
            hint="Give a directory with safetensors weights",
        )

    @pytest.mark.parametrize("kind", [*REFUSED, "llama"])
    def test_a_model_that_is_not_converted(self, hf, kind):
        edit_config(hf, lambda c: c.update(model_type=kind))
        error = no(
            hf,
            fault=UnsupportedError,
            says=("config.json names", "which is not supported"),
            hint="Supported: qwen3_vl, qwen3_vl_moe, qwen2_5_vl",
        )
        assert REFUSED.get(kind, "llama") in error.what

    def test_quantised(self, hf):
        edit_config(hf, lambda c: c.update(quantization_config={"quant_method": "awq"}))
        no(hf, fault=UnsupportedError, says="quantised weights of qwen3_vl (quantization_config)", hint="unquantised")

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1, "a": 2}', '{"a": NaN}', "\xff"])
    def test_a_config_that_is_none(self, hf, text):
        (hf / "config.json").write_bytes(text.encode("latin-1"))
        no(hf, fault=CorruptError, says="config.json")

    def test_a_config_with_a_gap(self, hf):
        edit_config(hf, lambda c: c["text_config"].pop("num_key_value_heads"))
        no(
            hf,
            fault=CorruptError,
            says="config.json: text_config.num_key_value_heads is missing",
            hint="no value is guessed",
        )


class TestFiles:
    def test_a_shard_missing(self, hf):
        (hf / SHARD).unlink()
        no(hf, fault=CorruptError, says=f"{hf / SHARD}: missing, though {INDEX} names it", hint="incomplete")

    @pytest.mark.parametrize("keep", [0, 7, 100, -100, -1])
    def test_a_shard_truncated(self, hf, keep):
        size = (hf / SHARD).stat().st_size
        os.truncate(hf / SHARD, keep if keep >= 0 else size + keep)
        no(hf, fault=CorruptError, says=str(hf / SHARD), hint="again")

    def test_a_shard_with_more_behind_it(self, hf):
        with (hf / SHARD).open("ab") as file:
            file.write(b"x")
        no(hf, fault=CorruptError, says=(f"{hf / SHARD}: the tensors leave a gap",))

    @pytest.mark.parametrize("kind", ["folder", "fifo"])
    def test_a_shard_that_is_no_file(self, hf, kind):
        (hf / SHARD).unlink()
        (hf / SHARD).mkdir() if kind == "folder" else os.mkfifo(hf / SHARD)
        no(hf, fault=CorruptError, says=f"{hf / SHARD}: missing")

    def test_a_shard_in_the_place_of_another(self, hf):
        shutil.copyfile(hf / SHARD.replace("00002", "00001"), hf / SHARD)
        no(hf, fault=CorruptError, says=("holds ", f"which {INDEX} does not place there"), hint="different models")

    def test_an_index_that_lacks_a_tensor(self, hf):
        self.edit_index(hf, lambda m: m.pop(NORM))
        no(hf, fault=CorruptError, says=(f"holds {NORM}", f"which {INDEX} does not place there"))

    def test_an_index_with_a_tensor_more(self, hf):
        self.edit_index(hf, lambda m: m.update(more=SHARD))
        no(hf, fault=CorruptError, says=f"{hf / SHARD}: lacks more, which {INDEX} places there")

    @pytest.mark.parametrize("name", ["../model.safetensors", "/dev/zero", ".."])
    def test_an_index_that_leads_outside(self, hf, name):
        self.edit_index(hf, lambda m: m.update({NORM: name}))
        no(hf, fault=CorruptError, says=(INDEX, "names a file outside the directory"), hint="hostile")

    def edit_index(self, hf, change):
        index = json.loads((hf / INDEX).read_text())
        change(index["weight_map"])
        (hf / INDEX).write_text(json.dumps(index))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda h: h.update({NORM: {**h[NORM], "shape": [65]}}), f"{NORM} has 128 bytes where its shape needs 130"),
            (lambda h: h.update({NORM: {**h[NORM], "data_offsets": [0, 128]}}), "the tensors overlap"),
            (lambda h: h.pop(NORM), "the tensors leave a gap"),
            (lambda h: h.update({NORM: {**h[NORM], "dtype": "I128"}}), f"{NORM} has dtype I128"),
            (lambda h: h.update({NORM: {**h[NORM], "dtype": {}}}), f"the header entry of {NORM} is malformed"),
        ],
    )
    def test_a_header_that_lies(self, hf, change, says):
        path = next(p for p in sorted(hf.glob("*.safetensors")) if f'"{NORM}"'.encode() in p.read_bytes())
        entries, data = self.parts(path)
        change(entries)
        text = json.dumps(entries).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        no(hf, fault=UnsupportedError if "I128" in says else CorruptError, says=(str(path), says))

    def test_a_header_that_names_a_tensor_twice(self, hf):
        path = next(p for p in sorted(hf.glob("*.safetensors")) if f'"{NORM}"'.encode() in p.read_bytes())
        entries, data = self.parts(path)
        text = (
            json.dumps(entries)
            .encode()
            .replace(b"{", b'{"%s": %s, ' % (NORM.encode(), json.dumps(entries[NORM]).encode()), 1)
        )
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        no(hf, fault=CorruptError, says=(str(path), f"{NORM!r} is there twice"))

    def parts(self, path):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        return json.loads(raw[8 : 8 + length]), raw[8 + length :]


class TestTensors:
    def test_missing(self, hf):
        rewritten(hf, lambda t: t.pop(NORM))
        no(hf, fault=MismatchError, says=(f"{hf}: the tensor names are not those", "1 missing:", f"  {NORM}"))

    def test_surplus(self, hf):
        rewritten(hf, lambda t: t.update({f"{LAYER}.self_attn.q_proj.bias": torch.zeros(128)}))
        no(hf, fault=MismatchError, says=("1 not expected:", f"  {LAYER}.self_attn.q_proj.bias"))

    def test_misspelled(self, hf):
        rewritten(hf, lambda t: t.update({NORM.replace("norm", "nrom"): t.pop(NORM)}))
        no(hf, fault=MismatchError, says=(f"  {NORM}  (nearest: {NORM.replace('norm', 'nrom')})", "1 not expected:"))

    @pytest.mark.parametrize(
        ("name", "shape", "says", "hint"),
        [
            (NORM, (32,), "is [32]; the config makes it [64]", "text_config.hidden_size = 64"),
            (
                f"{LAYER}.mlp.gate_proj.weight",
                (97, 64),
                "is [97, 64]; the config makes it [96, 64]",
                "text_config.intermediate_size = 96",
            ),
            (
                f"{LAYER}.mlp.gate_proj.weight",
                (64, 96),
                "is [64, 96]; the config makes it [96, 64]",
                "text_config.hidden_size = 64",
            ),
            (
                f"{LAYER}.self_attn.k_proj.weight",
                (128, 64),
                "is [128, 64]; the config makes it [64, 64]",
                "text_config.num_key_value_heads = 4",
            ),
            (
                "lm_head.weight",
                (301, 64),
                "is [301, 64]; the config makes it [300, 64]",
                "text_config.vocab_size = 300",
            ),
            ("model.visual.blocks.0.attn.qkv.weight", (96,), "is [96]; the config makes it [96, 32]", ""),
        ],
    )
    def test_a_wrong_shape(self, hf, name, shape, says, hint):
        rewritten(hf, lambda t: t.update({name: torch.zeros(shape, dtype=torch.bfloat16)}))
        no(hf, fault=MismatchError, says=(name, says), hint=hint)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn])
    def test_a_dtype_that_is_no_weights(self, hf, dtype):
        rewritten(hf, lambda t: t.update({NORM: torch.zeros(64).to(dtype)}))
        no(hf, fault=MismatchError, says=f"{NORM} has dtype {str(dtype).removeprefix('torch.')}", hint="unquantised")

    def test_parts_of_different_dtypes(self, hf):
        rewritten(
            hf, lambda t: t.update({f"{LAYER}.self_attn.k_proj.weight": t[f"{LAYER}.self_attn.k_proj.weight"].float()})
        )
        says = (
            "layers.1.self_attention.linear_qkv.weight would be made of parts with different dtypes",
            "_proj.weight is bfloat16",
            "k_proj.weight is float32",
        )
        no(hf, fault=MismatchError, says=says, hint="--dtype")
        assert hf2mcore(hf, hf.parent / "out", Hf2McoreOptions(dtype="bfloat16")).status == "done"

    def test_layers_of_different_dtypes(self, hf):
        rewritten(hf, lambda t: t.update({f"{LAYER}.mlp.down_proj.weight": t[f"{LAYER}.mlp.down_proj.weight"].float()}))
        says = ("the layers of language_model.decoder.layers.mlp.linear_fc2.weight differ", "float32", "bfloat16")
        no(hf, fault=MismatchError, says=says, hint="--dtype")

    def test_a_number_too_large_for_the_dtype(self, hf):
        rewritten(hf, lambda t: t[NORM].__setitem__(5, 1e6))
        no(
            hf,
            Hf2McoreOptions(dtype="float16"),
            fault=MismatchError,
            says=f"{NORM}: holds numbers too large for float16",
            hint="--dtype",
        )

    def test_a_config_of_another_size(self, hf):
        edit_config(hf, lambda c: c["text_config"].update(num_hidden_layers=5))
        no(hf, fault=MismatchError, says=("missing:", "model.language_model.layers.4.input_layernorm.weight"))

    @pytest.mark.parametrize(
        ("kind", "other"),
        [
            ("qwen3_vl", "qwen3_vl_moe"),
            ("qwen3_vl_moe", "qwen3_vl"),
            ("qwen2_5_vl", "qwen3_vl"),
            ("qwen3_vl", "qwen2_5_vl"),
        ],
    )
    def test_a_config_of_another_model(self, models, tmp_path, kind, other):
        shutil.copytree(models / kind, tmp_path / "hf")
        shutil.copyfile(models / other / "config.json", tmp_path / "hf" / "config.json")
        no(tmp_path / "hf", fault=MismatchError, says=("missing:", "not expected:"), hint="config")


class TestTies:
    def test_an_output_layer_though_tied(self, hf):
        edit_config(
            hf, lambda c: (c.update(tie_word_embeddings=True), c["text_config"].update(tie_word_embeddings=True))
        )
        no(
            hf,
            fault=MismatchError,
            says="the model is tied, but lm_head.weight is no copy of its embedding",
            hint="One of the two would be lost",
        )

    def test_no_output_layer_though_untied(self, hf):
        rewritten(hf, lambda t: t.pop("lm_head.weight"))
        no(
            hf,
            fault=MismatchError,
            says=("tie_word_embeddings is false in config.json", "there is no output layer"),
            hint="Set tie_word_embeddings to true",
        )

    @pytest.mark.parametrize("value", ["yes", 1, 0.0])
    def test_a_tie_that_is_neither(self, hf, value):
        edit_config(hf, lambda c: c.update(tie_word_embeddings=value))
        no(hf, fault=CorruptError, says=f"tie_word_embeddings is {value}, not true or false")


class TestExperts:
    @pytest.fixture
    def moe(self, tmp_path, models):
        shutil.copytree(models / "qwen3_vl_moe", tmp_path / "hf")
        return tmp_path / "hf"

    def test_two_orientations(self, moe):
        name = f"{LAYER}.mlp.experts.down_proj"
        rewritten(moe, lambda t: t.update({name: t[name].transpose(1, 2).contiguous()}))
        no(
            moe,
            fault=MismatchError,
            says=("the experts are oriented two ways at once", f"{name} [4, 64, 24] is transformers-5"),
        )

    def test_one_too_few(self, moe):
        name = f"{LAYER}.mlp.experts.down_proj"
        rewritten(moe, lambda t: t.update({name: t[name][:3].contiguous()}))
        no(
            moe,
            fault=MismatchError,
            says=f"{name} is [3, 24, 64]; the config makes it [4, 24, 64]",
            hint="text_config.num_experts = 4",
        )

    def test_square_ones(self, tmp_path):
        write_tiny_hf(
            tmp_path / "hf",
            tiny_config("qwen3_vl_moe", text={"moe_intermediate_size": 32, "num_experts": 2, "mlp_only_layers": []}),
        )
        rewritten(tmp_path / "hf", lambda t: None)
        assert (
            hf2mcore(tmp_path / "hf", tmp_path / "out", Hf2McoreOptions(dry_run=True)).data["experts_form"] == "hub"
        )  # down_proj shows it
