"""convert_tensor and placements for every model in every layout, on tensors that the trainers' own formulas give
(tests/trainers), and on those of the file commands' Readers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from memory import Memory, all_bits, bits
from tiny import tiny_config, tiny_shapes, tiny_weights
from trainers.places import TRAINERS
from trainers.sizes import sizes

from vlconv.converters.checkpoint.mapping import mapped_table
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.live import Rank, Topology, live_model, placements, sources_of, to_hf, to_mcore

SAMPLED = 3

Tensors = dict[str, torch.Tensor]

CASES = [(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds]
PIECES = ("query", "key", "value", "z", "beta", "alpha")


@cache
def weights(kind: str) -> Tensors:
    """Hugging Face tensors, in the dtype of a trainer's parameters."""
    return tiny_weights(tiny_shapes(tiny_config(kind)), delta_dtype="bfloat16")


@cache
def parameters(layout: str, kind: str) -> Tensors:
    """The trainer's parameters by its formulas; what torch_dist files hold in pieces is one parameter in memory."""
    found: Tensors = {}
    pieces: dict[str, Tensors] = {}
    for name, tensor in TRAINERS[layout].names(sizes(tiny_config(kind)), weights(kind)).items():
        whole, _, piece = name.rpartition(".")
        if piece in PIECES and whole.endswith((".in_proj.weight", ".conv1d.weight")):
            pieces.setdefault(whole, {})[piece] = tensor
        else:
            found[name] = tensor
    found |= {name: torch.cat([parts[p] for p in PIECES if p in parts]) for name, parts in pieces.items()}
    return stacked(found)


def stacked(tensors: Tensors) -> Tensors:
    """Experts in modules of their own, as one parameter."""
    modules = {name: re.sub(r"local_experts\.\d+", "experts", name) for name in tensors}
    found = {name: tensor for name, tensor in tensors.items() if modules[name] == name}
    for name, whole in modules.items():
        if whole != name and whole not in found:
            found[whole] = torch.stack([tensor for other, tensor in tensors.items() if modules[other] == whole])
    return found


def expected(layout: str, kind: str) -> Tensors:
    """What comes out: all but the tower of a layout without one."""
    tower = bool(LAYOUTS[layout].tower)
    return {name: t for name, t in weights(kind).items() if tower or not re.match(r"(model\.)?visual\.", name)}


def same(found: Tensors, wanted: Tensors) -> list[str]:
    """The names that differ."""
    wrong = [name for name in found.keys() & wanted.keys() if not equal(found[name], wanted[name])]
    return sorted([*wrong, *(found.keys() ^ wanted.keys())])


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def test_every_layout_is_here() -> None:
    assert {(name, kind) for name, layout in LAYOUTS.items() for kind in layout.models} == set(CASES)


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_to_hf(layout: str, kind: str) -> None:
    model = live_model(tiny_config(kind), layout)
    found = [pair for name, tensor in parameters(layout, kind).items() for pair in to_hf(model, name, tensor)]
    assert len(found) == len(dict(found))
    assert same(dict(found), expected(layout, kind)) == []


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_to_mcore(layout: str, kind: str) -> None:
    model = live_model(tiny_config(kind), layout)
    found = dict(pair for name in parameters(layout, kind) for pair in to_mcore(model, name, weights(kind)))
    less_one = [name for name in found if name.endswith("out_norm.weight")]
    assert same(without(found, less_one), without(parameters(layout, kind), less_one)) == []
    for name in less_one:  # rounded there and back again in bfloat16
        assert torch.allclose(found[name].float(), parameters(layout, kind)[name].float(), atol=2**-8)


def without(tensors: Tensors, names: list[str]) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_as_the_file_commands(layout: str, kind: str) -> None:
    """hf2mcore's and mcore2hf's Readers, bit for bit, the tensors that compute included."""
    model = live_model(tiny_config(kind), layout)
    naming = mapped_table(model.layout, model.config, model.config.text.vocab)
    mcore = naming.from_hf(Memory(weights(kind)))
    for name, wanted in all_bits(mcore).items():
        ((_, found),) = to_mcore(model, name, {part: weights(kind)[part] for part in sources_of(model, name)})
        assert (bits(found) == wanted).all(), name
    back = all_bits(naming.to_hf(Memory(parameters_of(mcore))).reader)
    for name, tensor in parameters_of(mcore).items():
        for hf_name, found in to_hf(model, name, tensor):
            assert (bits(found) == back.pop(hf_name)).all(), hf_name
    assert not back


def parameters_of(reader: Any) -> Tensors:
    """All of a Reader as torch tensors."""
    return {
        name: torch.from_numpy(found.view("int16")).view(getattr(torch, reader.specs[name].dtype))
        for name, found in all_bits(reader).items()
    }


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_placements_of_one_rank(layout: str, kind: str) -> None:
    """A rank that has everything: its tensors through placements are the Hugging Face tensors."""
    model = live_model(tiny_config(kind), layout)
    own = one_by_one(parameters(layout, kind))
    wanted = expected(layout, kind)
    found = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    where = placements(model, None, Topology(), Rank(), names=own)
    assert where.keys() == own.keys()
    for name, listed in where.items():
        for place in listed:
            value = place.local(own[name])
            place.hf(found[place.hf_name])[...] = place.local_box.of(own[name]) + (1 if place.add else 0)
            assert value.shape == place.hf_box.lengths and not place.replica
    assert same(found, wanted) == []


def one_by_one(tensors: Tensors) -> Tensors:
    """Parameters as a model has them: grouped experts one by one."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        if ".mlp.experts.experts." in name:
            short = name.replace(".experts.experts.", ".experts.")
            found |= {f"{short}{e}": one for e, one in enumerate(tensor)}
        else:
            found[name] = tensor
    return found


@pytest.mark.parametrize(("layout", "kind"), [case for case in CASES if "moe" in case[1] and "hf" not in case[0][:2]])
def test_experts_one_by_one(layout: str, kind: str) -> None:
    """Each expert's own tensors under per-expert names, whatever the Hub has."""
    model = live_model(tiny_config(kind), layout)
    c = model.config.text
    for name, tensor in parameters(layout, kind).items():
        if ".mlp.experts.experts." in name:
            h = dict(to_hf(live_model(tiny_config(kind), layout, experts="per-expert"), name, tensor))
            for e in range(c.experts):
                short = name.replace(".experts.experts.", ".experts.") + str(e)
                found = dict(to_hf(model, short, tensor[e]))
                stem = f".mlp.experts.{e}."
                assert same(found, {n: t for n, t in h.items() if stem in n}) == []
                up = [t for n, t in sorted(found.items())]
                assert torch.equal(torch.cat(up), tensor[e])  # gate before up; down alone
                local = short.replace(f".weight{e}", ".weight").replace(
                    ".experts.", f".experts.local_experts.{e % 2}.", 1
                )
                again = to_hf(model, local, tensor[e], e // 2, c.experts // 2)
                assert same(dict(again), found) == []
                ((_, back),) = to_mcore(model, short, found)
                assert torch.equal(back, tensor[e])
