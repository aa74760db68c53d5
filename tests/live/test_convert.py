"""convert_tensor: which names and tensors it takes, what it gives as views, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metamodel import hf_model_config
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters.errors import CorruptError, MismatchError, UnsupportedError
from vlconv.converters.live import convert_tensor, live_model, sources_of, to_hf, to_mcore

DENSE, MOE = tiny_config("qwen3_vl"), tiny_config("qwen3_vl_moe")
HYBRID = tiny_config("qwen3_5")
LAYER = "language_model.decoder.layers.1"
HF = "model.language_model.layers.1"


def weights(config: dict[str, Any], dtype: str = "bfloat16") -> dict[str, torch.Tensor]:
    return tiny_weights(tiny_shapes(config), dtype=dtype, delta_dtype="bfloat16")


def parameter(name: str, config: dict[str, Any] = DENSE) -> torch.Tensor:
    ((_, tensor),) = convert_tensor(name, weights(config), config=config, to="mcore")
    return tensor


class TestNames:
    @pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "model.module.module."])
    def test_wrappers_prefixes(self, prefix: str) -> None:
        name = f"{LAYER}.self_attention.linear_proj.weight"
        ((found, tensor),) = convert_tensor(prefix + name, parameter(name), config=DENSE)
        assert found == f"{HF}.self_attn.o_proj.weight" and torch.equal(tensor, weights(DENSE)[found])

    @pytest.mark.parametrize(
        ("name", "hf"),
        [
            (f"{LAYER}.input_layernorm.weight", f"{HF}.input_layernorm.weight"),
            (f"{LAYER}.self_attention.linear_qkv.layer_norm_weight", f"{HF}.input_layernorm.weight"),
            (f"{LAYER}.pre_mlp_layernorm.weight", f"{HF}.post_attention_layernorm.weight"),
            (f"{LAYER}.mlp.linear_fc1.layer_norm_weight", f"{HF}.post_attention_layernorm.weight"),
        ],
    )
    def test_norms_of_either_spec(self, name: str, hf: str) -> None:
        ((found, tensor),) = convert_tensor(name, weights(DENSE)[hf], config=DENSE)
        assert found == hf and torch.equal(tensor, weights(DENSE)[hf])
        assert sources_of(live_model(DENSE), name) == [hf]

    @pytest.mark.parametrize("name", ["decoder.layers.0.mlp.linear_fc1._extra_state", "rotary_pos_emb.inv_freq"])
    @pytest.mark.parametrize("to", ["hf", "mcore"])
    def test_what_is_no_weight_gives_nothing(self, name: str, to: Any) -> None:
        assert convert_tensor(f"module.language_model.{name}", {}, config=DENSE, to=to) == []

    def test_a_tied_output_layer_is_the_embedding(self) -> None:
        tied = tiny_config("qwen3_vl", tied=True)
        assert convert_tensor("language_model.output_layer.weight", torch.zeros(300, 64), config=tied) == []
        embedding = torch.randn(300, 64)
        ((name, found),) = convert_tensor("language_model.embedding.word_embeddings.weight", embedding, config=tied)
        assert name == "model.language_model.embed_tokens.weight" and found is not None

    @pytest.mark.parametrize(
        ("name", "config"),
        [
            (f"{LAYER}.mlp.experts.linear_fc1.weight0", DENSE),
            (f"{LAYER}.mlp.router.weight", DENSE),
            (f"{LAYER}.mlp.linear_fc1.weight", MOE),
            ("language_model.decoder.layers.4.mlp.linear_fc2.weight", DENSE),
            ("language_model.decoder.layers.mlp.linear_fc2.weight", DENSE),  # a stacked key of a file
            (f"{LAYER}.self_attention.linear_qkv.bias", DENSE),
            (f"{LAYER}.mlp.linear_fc1.weight_w", DENSE),  # one half, as Megatron-FSDP's files have it
            ("language_model.mtp.layers.0.enorm.weight", DENSE),
        ],
    )
    def test_unknown(self, name: str, config: dict[str, Any]) -> None:
        with pytest.raises(MismatchError, match=r"is no tensor of this qwen3_vl.* in layout mbridge") as raised:
            convert_tensor(name, torch.zeros(1), config=config)
        assert name in str(raised.value)

    def test_the_nearest_names_are_said(self) -> None:
        with pytest.raises(MismatchError, match=r"nearest: .*layers\.1\.self_attention\.linear_qkv\.weight"):
            convert_tensor(f"{LAYER}.self_attention.linear_qkvs.weight", torch.zeros(1), config=DENSE)

    @pytest.mark.parametrize(
        ("number", "rank", "size"), [(4, 0, 1), (2, 0, 2), (0, 2, 2), (0, 0, 3), (0, -1, 2), (0, 0, 0)]
    )
    def test_no_such_expert(self, number: int, rank: int, size: int) -> None:
        with pytest.raises(MismatchError, match="expert"):
            convert_tensor(
                f"{LAYER}.mlp.experts.linear_fc1.weight{number}",
                torch.zeros(48, 64),
                config=MOE,
                ep_rank=rank,
                ep_size=size,
            )

    def test_a_head_that_the_trainer_has_not(self) -> None:
        name = "language_model.mtp.layers.0.enorm.weight"
        assert HYBRID["text_config"]["mtp_num_hidden_layers"] == 1
        assert len(convert_tensor(name, torch.zeros(64), config=HYBRID)) == 1
        with pytest.raises(MismatchError, match="is no tensor"):
            to_hf(live_model(HYBRID, mtp=False), name, torch.zeros(64))


class TestTensors:
    def test_views_where_a_box_is_all(self) -> None:
        fc1 = parameter(f"{LAYER}.mlp.linear_fc1.weight").requires_grad_()
        (gate, up) = [t for _, t in convert_tensor(f"{LAYER}.mlp.linear_fc1.weight", fc1, config=DENSE)]
        assert gate.data_ptr() == fc1.data_ptr() and up.data_ptr() == fc1[gate.shape[0] :].data_ptr()
        assert gate.is_contiguous() and up.is_contiguous() and not gate.requires_grad

    def test_transposed_experts_are_views(self) -> None:
        name = f"{LAYER}.mlp.experts.experts.linear_fc2.weight"
        whole = parameter(name, MOE)
        ((_, found),) = convert_tensor(name, whole, config=MOE)
        assert found.data_ptr() == whole.data_ptr() and found.shape == (4, 24, 64) and whole.shape == (4, 64, 24)

    def test_query_groups_are_new_tensors(self) -> None:
        name = f"{LAYER}.self_attention.linear_qkv.weight"
        qkv = parameter(name)
        found = dict(convert_tensor(name, qkv, config=DENSE))
        assert [n.rpartition("self_attn.")[2] for n in found] == ["q_proj.weight", "k_proj.weight", "v_proj.weight"]
        before = {n: t.clone() for n, t in found.items()}
        qkv.zero_()
        assert all(torch.equal(found[n], before[n]) and before[n].any() for n in found)

    @pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
    def test_numpy_as_torch(self, dtype: str) -> None:
        model, hf = live_model(HYBRID), weights(HYBRID, dtype)
        for name in (f"{LAYER}.self_attention.out_norm.weight", f"{LAYER}.self_attention.in_proj.weight"):
            ((_, wanted),) = to_mcore(model, name, hf)
            ((_, found),) = to_mcore(model, name, {n: t.numpy() for n, t in hf.items()})
            assert isinstance(found, np.ndarray) and (found == wanted.numpy()).all()
            for (a, x), (b, y) in zip(to_hf(model, name, wanted), to_hf(model, name, wanted.numpy()), strict=True):
                assert a == b and (x.numpy() == y).all()

    def test_bfloat16_as_bits(self) -> None:
        name = f"{LAYER}.self_attention.out_norm.weight"
        ((_, wanted),) = convert_tensor(name, weights(HYBRID), config=HYBRID, to="mcore")
        as_bits = {n: t.view(torch.int16).numpy().view(np.uint16) for n, t in weights(HYBRID).items()}
        ((_, found),) = convert_tensor(name, as_bits, config=HYBRID, to="mcore")
        assert (found.view(np.int16) == wanted.view(torch.int16).numpy()).all()
        assert torch.equal(wanted, (weights(HYBRID)[f"{HF}.linear_attn.norm.weight"].float() - 1).bfloat16())

    @pytest.mark.parametrize("rows", [384, 512])
    def test_padding_is_cut(self, rows: int) -> None:
        embedding = torch.randn(rows, 64)
        ((_, found),) = convert_tensor("language_model.embedding.word_embeddings.weight", embedding, config=DENSE)
        assert torch.equal(found, embedding[:300])

    def test_padding_that_nothing_explains(self) -> None:
        name = "language_model.output_layer.weight"
        with pytest.raises(MismatchError, match="303 rows"):
            convert_tensor(name, torch.zeros(303, 64), config=DENSE)
        model = live_model(DENSE, make_vocab_size_divisible_by=101)
        assert to_hf(model, name, torch.zeros(303, 64))[0][1].shape == (300, 64)

    def test_padding_is_made(self) -> None:
        name, hf = "language_model.output_layer.weight", weights(DENSE)
        ((_, found),) = to_mcore(live_model(DENSE), name, hf, vocab_rows=384)
        assert torch.equal(found[:300], hf["lm_head.weight"]) and found.shape == (384, 64) and not found[300:].any()
        with pytest.raises(MismatchError, match="no place in 299"):
            to_mcore(live_model(DENSE), name, hf, vocab_rows=299)

    @pytest.mark.parametrize(
        ("name", "shape", "want"),
        [
            (f"{LAYER}.self_attention.linear_qkv.weight", (128, 64), "[256, 64]"),  # one of two ranks
            (f"{LAYER}.self_attention.linear_qkv.weight", (256, 64, 1), "[256, 64]"),
            ("language_model.embedding.word_embeddings.weight", (150, 64), "[300, 64]"),
            ("language_model.embedding.word_embeddings.weight", (384, 32), "[300, 64]"),
        ],
    )
    def test_other_shapes(self, name: str, shape: tuple[int, ...], want: str) -> None:
        with pytest.raises(MismatchError, match="gathered over tensor parallel ranks") as raised:
            convert_tensor(name, torch.zeros(shape), config=DENSE)
        assert want in str(raised.value) and str(list(shape)) in str(raised.value)

    def test_what_is_missing_or_mixed(self) -> None:
        name, hf = f"{LAYER}.mlp.linear_fc1.weight", weights(DENSE)
        part = f"{HF}.mlp.up_proj.weight"
        with pytest.raises(MismatchError, match=r"up_proj\.weight, among others, which is not there"):
            convert_tensor(name, {n: t for n, t in hf.items() if n != part}, config=DENSE, to="mcore")
        with pytest.raises(MismatchError, match="different dtypes"):
            convert_tensor(name, {**hf, part: hf[part].float()}, config=DENSE, to="mcore")
        with pytest.raises(MismatchError, match=r"up_proj.weight is \[1, 64\]"):
            convert_tensor(name, {**hf, part: hf[part][:1]}, config=DENSE, to="mcore")
        with pytest.raises(MismatchError, match="by their names"):
            convert_tensor(name, hf[part], config=DENSE, to="mcore")

    def test_one_expert_of_a_packed_tensor(self) -> None:
        model = live_model(MOE, experts="hub")
        with pytest.raises(MismatchError, match=r"expert 1 is a part of .*gate_up_proj"):
            to_hf(model, f"{LAYER}.mlp.experts.linear_fc1.weight1", torch.zeros(48, 64))

    def test_no_plain_tensor(self) -> None:
        class Cut(torch.Tensor):
            full_tensor = None

        name = f"{LAYER}.mlp.linear_fc2.weight"
        with pytest.raises(MismatchError, match="DTensor"):
            convert_tensor(name, parameter(name).as_subclass(Cut), config=DENSE)

        class Float8(torch.Tensor):
            """Its scales are elsewhere."""

        with pytest.raises(MismatchError, match=r"linear_fc2\.weight is a Float8 of .*test_convert"):
            convert_tensor(name, parameter(name).as_subclass(Float8), config=DENSE)
        assert convert_tensor(name, torch.nn.Parameter(parameter(name)), config=DENSE)
        with pytest.raises(MismatchError, match="torch tensor or a numpy array"):
            convert_tensor(name, [1.0], config=DENSE)

    @pytest.mark.parametrize("dtype", [np.int8, torch.int8, torch.float8_e4m3fn, torch.bool], ids=str)
    def test_what_is_computed_is_a_weight(self, dtype: Any) -> None:
        """No code of 8 bits, to which no number can be added."""
        with pytest.raises(MismatchError, match=r"has dtype (int8|float8_e4m3fn|bool)"):
            norm = torch.zeros(16).to(dtype) if isinstance(dtype, torch.dtype) else np.zeros(16, dtype)
            convert_tensor(f"{LAYER}.self_attention.out_norm.weight", norm, config=HYBRID)

    def test_threads(self) -> None:
        model, hf = live_model(MOE), weights(MOE)
        names = [n for n in model.table().mcore if "layers" in n]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: to_hf(model, n, to_mcore(model, n, hf)[0][1]), names * 4))
        assert all(torch.equal(t, hf[n]) for pairs in found for n, t in pairs)


class TestForms:
    def test_names_of_transformers_models(self) -> None:
        """Qwen2.5-VL's own prefixes in a state_dict of transformers 4.52 and later."""
        config = tiny_config("qwen2_5_vl")
        model = live_model(config, hf_names="new")
        for name in model.table().mcore:
            assert all(
                n.startswith(("model.language_model.", "model.visual.", "lm_head.")) for n in sources_of(model, name)
            )

    def test_experts_as_transformers_5_holds_them(self) -> None:
        name = f"{LAYER}.mlp.experts.experts.linear_fc1.weight"
        whole = parameter(name, MOE)
        ((_, found),) = to_hf(live_model(MOE, experts="transformers-5"), name, whole)
        assert torch.equal(found, whole)
        ((_, hub),) = to_hf(live_model(MOE), name, whole)
        assert torch.equal(hub, whole.transpose(1, 2))


class TestConfigs:
    def test_every_kind(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path, DENSE)
        kinds = [DENSE, hf_model_config(DENSE), tmp_path, str(tmp_path), tmp_path / "config.json", live_model(DENSE)]
        assert len({live_model(kind) for kind in kinds}) == 1

    def test_flat(self) -> None:
        config = tiny_config("qwen3_moe")
        assert live_model(config).layout.name == "megatron-lm"
        assert live_model(hf_model_config(config)) == live_model(config)

    def test_a_model_that_is_made_is_not_another(self) -> None:
        model = live_model(HYBRID, "mbridge", make_vocab_size_divisible_by=64)
        assert live_model(model) is live_model(model, "mbridge") is live_model(model, make_vocab_size_divisible_by=64)
        name = "language_model.decoder.final_layernorm.weight"
        with pytest.raises(MismatchError, match="roll, not mbridge"):
            convert_tensor(name, torch.zeros(64), config=model, layout="roll")
        for how in ({"experts": "hub"}, {"hf_names": "new"}, {"mtp": False}, {"make_vocab_size_divisible_by": 128}):
            with pytest.raises(MismatchError, match="other arguments"):
                live_model(model, **how)

    def test_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MismatchError, match="a transformers config, a dict or a path, not int"):
            live_model(7)  # type: ignore[arg-type]
        with pytest.raises(MismatchError, match=r"layout megatron-lm is one of .*\nFor qwen3_vl there are: .*mbridge"):
            live_model(DENSE, "megatron-lm")
        with pytest.raises(UnsupportedError, match="llama"):
            live_model({"model_type": "llama"})
        with pytest.raises(CorruptError, match="hidden_size"):
            live_model(tiny_config("qwen3_vl", text={"hidden_size": None}))
        with pytest.raises(MismatchError, match="no layout is called 'mbrige'"):
            live_model(DENSE, "mbrige")


def test_neither_torch_nor_the_command_line_is_imported() -> None:
    heavy = "torch", "typer", "rich", "transformers", "vlconv.app"
    code = f"import sys, vlconv.converters.live; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
