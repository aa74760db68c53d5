"""Other spellings of the Hugging Face side: read, written, told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from logits import load
from memory import Memory, all_bits, bits
from safetensors.torch import load_file
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters.errors import MismatchError
from vlconv.converters.models import model_for
from vlconv.converters.models.shared.hf_dialects import Dialect, dialect_copies, read_dialect
from vlconv.converters.tensors.mapped import Mapped, prove
from vlconv.converters.tensors.rules import flipped, table


def geometry(hf_config):
    return model_for(hf_config).config(hf_config)


def respelled(tensors, hf_config, dialect):
    """The same tensors in a dialect, by torch's own means."""
    found = {}
    experts, ffn = (
        hf_config.get("text_config", {}).get("num_experts", 0),
        hf_config.get("text_config", {}).get("moe_intermediate_size", 0),
    )
    for name, t in tensors.items():
        stem, _, kind = name.rpartition(".experts.")
        if stem and dialect.experts == "transformers-5":
            found[name] = t.transpose(1, 2).contiguous()
        elif stem and dialect.experts == "per-expert":
            for e in range(experts):
                if kind == "down_proj":
                    found[f"{stem}.experts.{e}.down_proj.weight"] = t[e].T.contiguous()
                else:
                    found[f"{stem}.experts.{e}.gate_proj.weight"] = t[e, :, :ffn].T.contiguous()
                    found[f"{stem}.experts.{e}.up_proj.weight"] = t[e, :, ffn:].T.contiguous()
        elif dialect.hf_names == "new" and name.startswith("visual."):
            found[f"model.{name}"] = t
        elif dialect.hf_names == "new" and name.startswith("model."):
            found[name.replace("model.", "model.language_model.", 1)] = t
        else:
            found[name] = t
    return found


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[n], right[n]) for n in left)


CASES = [
    ("qwen3_vl_moe", {}, Dialect("hub")),
    ("qwen3_vl_moe", {}, Dialect("transformers-5")),
    ("qwen3_vl_moe", {}, Dialect("per-expert")),
    ("qwen3_vl_moe", {"text": {"mlp_only_layers": [0, 2]}}, Dialect("transformers-5")),
    ("qwen2_5_vl", {}, Dialect(hf_names="old")),
    ("qwen2_5_vl", {}, Dialect(hf_names="new")),
    ("qwen2_5_vl", {"tied": True}, Dialect(hf_names="new")),
    ("qwen3_vl", {}, Dialect()),
]


@pytest.mark.parametrize(("kind", "changes", "dialect"), CASES)
def test_each_dialect_is_recognised_read_and_written(kind, changes, dialect):
    hf_config = tiny_config(kind, **changes)
    config, hub = geometry(hf_config), tiny_weights(tiny_shapes(hf_config))
    other = respelled(hub, hf_config, dialect)
    reader = Memory(other)
    assert read_dialect({n: s.shape for n, s in reader.specs.items()}, config) == dialect
    copies = dialect_copies(config, dialect)
    prove(table(copies))
    assert same(all_bits(Mapped(reader, copies)), {n: bits(t) for n, t in hub.items()})
    assert same(all_bits(Mapped(Memory(hub), flipped(copies))), {n: bits(t) for n, t in other.items()})


@pytest.mark.versions
@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"])
@pytest.mark.parametrize("tied", [False, True])
def test_what_the_installed_transformers_saves_is_read(tmp_path, kind, tied):
    hf_config = tiny_config(kind, tied=tied)
    hub = write_tiny_hf(tmp_path / "hub", hf_config)
    load(tmp_path / "hub", "bfloat16").save_pretrained(tmp_path / "saved")
    saved = Memory(load_file(tmp_path / "saved/model.safetensors"))
    config = geometry(hf_config)
    dialect = read_dialect({n: s.shape for n, s in saved.specs.items()}, config)
    assert same(all_bits(Mapped(saved, dialect_copies(config, dialect))), {n: bits(t) for n, t in hub.items()})


def moe_shapes(**text):
    hf_config = tiny_config("qwen3_vl_moe", text=text)
    return geometry(hf_config), tiny_shapes(hf_config)


def swapped(shapes, *endings):
    return {n: (s[0], s[2], s[1]) if n.endswith(endings) else s for n, s in shapes.items()}


GATE_UP, DOWN = ".experts.gate_up_proj", ".experts.down_proj"


@pytest.mark.parametrize(("square", "other"), [(32, DOWN), (64, GATE_UP)])
def test_a_square_tensor_is_settled_by_the_other_one(square, other):
    config, shapes = moe_shapes(moe_intermediate_size=square)
    assert read_dialect(shapes, config).experts == "hub"
    assert read_dialect(swapped(shapes, other), config).experts == "transformers-5"


def test_square_experts_alone_are_refused_until_told():
    config, shapes = moe_shapes(moe_intermediate_size=32)
    alone = {n: s for n, s in shapes.items() if not n.endswith(DOWN)}
    with pytest.raises(MismatchError, match=r"gate_up_proj \[4, 64, 64\] is square") as error:
        read_dialect(alone, config)
    assert "--experts-form" in error.value.hint
    assert read_dialect(alone, config, "transformers-5").experts == "transformers-5"
    assert read_dialect(alone, config, "hub").experts == "hub"


def test_two_orientations_at_once():
    config, shapes = moe_shapes()
    with pytest.raises(MismatchError, match="two ways at once"):
        read_dialect(swapped(shapes, DOWN), config)


def test_experts_of_another_size_are_left_to_the_shape_check():
    config, _ = moe_shapes()
    _, other = moe_shapes(moe_intermediate_size=40)
    assert read_dialect(other, config).experts == "hub"


def test_the_largest_release_in_the_dialect_of_most_tensors():
    from vlconv.converters.models import RELEASES

    config = next(r.config for r in RELEASES if r.name == "Qwen3-VL-235B-A22B")
    copies = dialect_copies(config, Dialect("per-expert"))
    assert len(copies) == 1388 + 94 * (3 * 128 - 2)
    assert all(torch.Size(c.left.lengths).numel() == torch.Size(c.right.lengths).numel() for c in copies[::97])
