"""Megatron's key forms: each is read into one tensor per layer, experts on an axis, gate and up together."""

from __future__ import annotations

import numpy as np
import pytest

from vlconv.converters.config.shape_facts import shape_facts
from vlconv.converters.errors import CorruptError
from vlconv.converters.formats import columns, keys
from vlconv.converters.formats.chunks import Chunk
from vlconv.converters.formats.keys import Fold, Stored, canonical, fold, ignorable, kind_of_ignored
from vlconv.converters.formats.legacy.layers import State, first_layers, renumbered
from vlconv.converters.tensors.spec import TensorSpec
from vlconv.converters.tensors.tiling import tiling_fault

LM, VM = "language_model.decoder.layers", "vision_model.decoder.layers"
EXPERTS = f"{LM}.3.mlp.experts.experts"

FORMS = [
    # stacked
    (f"{LM}.self_attention.linear_qkv.weight", Fold(f"{LM}.{{}}.self_attention.linear_qkv.weight", stacked=True)),
    (f"{LM}.mlp.linear_fc1.layer_norm_weight", Fold(f"{LM}.{{}}.mlp.linear_fc1.layer_norm_weight", stacked=True)),
    ("decoder.layers.mlp.router.weight", Fold("decoder.layers.{}.mlp.router.weight", stacked=True)),
    (
        f"{LM}.mlp.experts.experts.linear_fc1.weight",
        Fold(f"{LM}.{{}}.mlp.experts.experts.linear_fc1.weight", stacked=True),
    ),
    (
        "vision_model.decoder.deepstack_merger_list.patch_norm.bias",
        Fold("vision_model.decoder.deepstack_merger_list.{}.patch_norm.bias", stacked=True),
    ),
    (
        "vision_model.decoder.deepstack_norm_list.weight",
        Fold("vision_model.decoder.deepstack_norm_list.{}.weight", stacked=True),
    ),
    (f"module.{VM}.mlp.linear_fc1.bias", Fold(f"module.{VM}.{{}}.mlp.linear_fc1.bias", stacked=True)),
    # one key per layer, and what is never stacked
    (f"{LM}.17.mlp.linear_fc2.weight", Fold(f"{LM}.17.mlp.linear_fc2.weight")),
    (f"{EXPERTS}.linear_fc2.weight", Fold(f"{EXPERTS}.linear_fc2.weight")),
    (
        "vision_model.decoder.deepstack_merger_list.0.encoder.linear_fc1.weight",
        Fold("vision_model.decoder.deepstack_merger_list.0.encoder.linear_fc1.weight"),
    ),
    ("vision_model.blocks.3.attn.qkv.weight", Fold("vision_model.blocks.3.attn.qkv.weight")),
    ("vision_model.decoder.final_layernorm.weight", Fold("vision_model.decoder.final_layernorm.weight")),
    (
        "image_encoder.encoder.blocks.layers.8.deepstack_layer.layernorm.bias",
        Fold("image_encoder.encoder.blocks.layers.8.deepstack_layer.layernorm.bias"),
    ),
    ("language_model.output_layer.weight", Fold("language_model.output_layer.weight")),
    # halves of a gated layer: singleton shards, Megatron-FSDP
    (f"{LM}.0.mlp.linear_fc1.weight_w", Fold(f"{LM}.0.mlp.linear_fc1.weight", half="w")),
    (f"{LM}.0.mlp.linear_fc1.weight_v", Fold(f"{LM}.0.mlp.linear_fc1.weight", half="v")),
    (f"{VM}.mlp.linear_fc1.bias_w", Fold(f"{VM}.{{}}.mlp.linear_fc1.bias", stacked=True, half="w")),
    (f"{VM}.mlp.linear_fc1.bias_v", Fold(f"{VM}.{{}}.mlp.linear_fc1.bias", stacked=True, half="v")),
    # a Gated DeltaNet's pieces
    (f"{LM}.0.self_attention.in_proj.weight", Fold(f"{LM}.0.self_attention.in_proj.weight")),
    (f"{LM}.0.self_attention.in_proj.weight.query", Fold(f"{LM}.0.self_attention.in_proj.weight", piece="query")),
    (f"{LM}.0.self_attention.in_proj.weight.alpha", Fold(f"{LM}.0.self_attention.in_proj.weight", piece="alpha")),
    (f"{LM}.0.self_attention.in_proj.bias.z", Fold(f"{LM}.0.self_attention.in_proj.bias", piece="z")),
    (f"{LM}.0.self_attention.conv1d.weight.value", Fold(f"{LM}.0.self_attention.conv1d.weight", piece="value")),
    (f"{LM}.0.self_attention.in_proj.layer_norm_weight", Fold(f"{LM}.0.self_attention.in_proj.layer_norm_weight")),
    (
        f"{LM}.self_attention.conv1d.weight.key",
        Fold(f"{LM}.{{}}.self_attention.conv1d.weight", stacked=True, piece="key"),
    ),
    (f"{LM}.0.self_attention.linear_attn.conv1d.weight", Fold(f"{LM}.0.self_attention.linear_attn.conv1d.weight")),
    ("decoder.layers.0.mixer.in_proj.weight.z", Fold("decoder.layers.0.mixer.in_proj.weight.z")),
    # multi-token-prediction heads
    ("mtp.layers.0.eh_proj.weight", Fold("mtp.layers.0.eh_proj.weight")),
    (
        "mtp.layers.0.mtp_model_layer.mlp.experts.linear_fc1.weight3_w",
        Fold("mtp.layers.0.mtp_model_layer.mlp.experts.experts.linear_fc1.weight", expert=3, half="w"),
    ),
    # experts one by one
    (f"{EXPERTS}.5.linear_fc1.weight", Fold(f"{EXPERTS}.linear_fc1.weight", expert=5)),
    (f"{EXPERTS}.5.linear_fc1.weight_w", Fold(f"{EXPERTS}.linear_fc1.weight", expert=5, half="w")),
    (f"{EXPERTS}.15.linear_fc1.weight_v", Fold(f"{EXPERTS}.linear_fc1.weight", expert=15, half="v")),
    (f"{LM}.3.mlp.experts.linear_fc1.weight3", Fold(f"{EXPERTS}.linear_fc1.weight", expert=3)),
    (f"{LM}.3.mlp.experts.linear_fc2.weight127", Fold(f"{EXPERTS}.linear_fc2.weight", expert=127)),
    (f"{LM}.3.mlp.experts.linear_fc1.weight3_w", Fold(f"{EXPERTS}.linear_fc1.weight", expert=3, half="w")),
    (f"{LM}.3.mlp.experts.linear_fc1.weight3_v", Fold(f"{EXPERTS}.linear_fc1.weight", expert=3, half="v")),
    (f"{LM}.3.mlp.experts.local_experts.12.linear_fc2.weight", Fold(f"{EXPERTS}.linear_fc2.weight", expert=12)),
    (
        f"{LM}.mlp.experts.experts.2.linear_fc1.weight",
        Fold(f"{LM}.{{}}.mlp.experts.experts.linear_fc1.weight", stacked=True, expert=2),
    ),
    # Hugging Face's own experts stay what they are
    ("language_model.layers.3.mlp.experts.gate_up_proj", Fold("language_model.layers.3.mlp.experts.gate_up_proj")),
]


@pytest.mark.parametrize(("key", "how"), FORMS, ids=[key for key, _ in FORMS])
def test_fold(key, how):
    assert fold(key) == how


IGNORED = {
    "optimizer.state.exp_avg.language_model.output_layer.weight": "optimizer",
    "optimizer.state.exp_avg.language_model.output_layer.weight_quantizer._amax": "optimizer",
    "optimizer.distributed.dp_group_idx_0.gbuf_idx_0": "optimizer",
    "chained_1.optimizer.state.fp32_param.a": "optimizer",
    "rng_state/shard_0_1": "rng_state",
    "rerun_state_machine_state/shard_0_1": "rerun_state",
    "opt_param_scheduler/shard_0_1": "scheduler",
    "lr_scheduler": "scheduler",
    "dataloader_state_dict": "dataloader",
    f"{LM}.mlp.linear_fc1._extra_state/shard_3_8": "_extra_state",
    f"{LM}.0.self_attention.rotary_emb.inv_freq": "inv_freq",
    f"{LM}.0.mlp.linear_fc1.input_quantizer._amax": "quantizer state",
    f"{LM}.0.mlp.linear_fc1.weight_quantizer._scale": "quantizer state",
    f"{LM}.0.mlp.linear_fc1.weight_quantizer._extra_state": "quantizer state",
    f"{LM}.0.mlp.linear_fc1.input_amax": "quantizer state",
    "args": "common state",
    "iteration": "common state",
    "checkpoint_version": "common state",
    "common_state": "common state",
}


@pytest.mark.parametrize(("name", "kind"), IGNORED.items(), ids=IGNORED)
def test_what_is_no_weight(name, kind):
    assert ignorable(name)
    assert kind_of_ignored(name) == kind


@pytest.mark.parametrize("name", [key for key, _ in FORMS] + ["surplus", "vision_model.optimizer_head.weight"])
def test_what_may_be_one(name):
    assert not ignorable(name)


class File:
    """Stored tensors whose items are rows of one array, each a number of its own; reads canonical tensors back."""

    def __init__(self):
        self.stored, self.items = [], []

    def add(self, name, array, boxes=None, dtype="float32"):
        """A tensor in these chunks, (offsets, lengths) each; None: in one."""
        spec, chunks = TensorSpec(name, array.shape, dtype), []
        for offsets, lengths in boxes or [((0,) * array.ndim, array.shape)]:
            chunks.append(Chunk(offsets, lengths, len(self.items)))
            self.items.append(array[tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))].flatten())
        self.stored.append(Stored(spec, chunks))
        return self

    def canonical(self):
        """Every canonical tensor, put together from its chunks, which must tile it."""
        specs, chunks = canonical(self.stored)
        assert specs.keys() == chunks.keys() and all(specs[n].name == n for n in specs)
        return {name: self._whole(spec, chunks[name]) for name, spec in specs.items()}

    def _whole(self, spec, chunks):
        assert tiling_fault(spec.shape, [(c.offsets, c.lengths) for c in chunks]) is None
        made = np.full(spec.shape, -1)
        for c in chunks:
            strides = c.strides or [int(np.prod(c.lengths[axis + 1 :], dtype=int)) for axis in range(len(c.lengths))]
            view = np.lib.stride_tricks.as_strided(self.items[c.item][c.start :], c.lengths, [s * 8 for s in strides])
            made[tuple(slice(o, o + n) for o, n in zip(c.offsets, c.lengths, strict=True))] = view
        return made


def numbers(*shape, start=0):
    return np.arange(start, start + np.prod(shape, dtype=int)).reshape(shape)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert np.array_equal(found[name], wanted[name]), name


class TestCanonical:
    def test_stacked_layers_in_chunks_of_one_and_of_several(self):
        a, b = numbers(4, 6, 2), numbers(4, 3, start=1000)
        boxes = [
            ((0, 0, 0), (1, 6, 2)),
            ((1, 0, 0), (2, 4, 2)),
            ((1, 4, 0), (2, 2, 2)),
            ((3, 0, 0), (1, 6, 1)),
            ((3, 0, 1), (1, 6, 1)),
        ]
        file = File().add(f"{LM}.mlp.linear_fc2.weight", a, boxes).add(f"{LM}.norm.weight", b)
        wanted = {f"{LM}.{i}.mlp.linear_fc2.weight": a[i] for i in range(4)} | {
            f"{LM}.{i}.norm.weight": b[i] for i in range(4)
        }
        same(file.canonical(), wanted)

    def test_halves(self):
        gate, up = numbers(3, 2), numbers(3, 2, start=100)
        file = File().add("a.weight_v", up).add("a.weight_w", gate, [((0, 0), (2, 2)), ((2, 0), (1, 2))])
        file.add("a.bias_w", gate[:, 0]).add("a.bias_v", up[:, 0])
        same(
            file.canonical(), {"a.weight": np.concatenate([gate, up]), "a.bias": np.concatenate([gate[:, 0], up[:, 0]])}
        )

    def test_halves_of_stacked_layers(self):
        gate, up = numbers(2, 3, 2), numbers(2, 3, 2, start=100)
        file = File().add(f"{VM}.mlp.linear_fc1.weight_w", gate).add(f"{VM}.mlp.linear_fc1.weight_v", up)
        same(file.canonical(), {f"{VM}.{i}.mlp.linear_fc1.weight": np.concatenate([gate[i], up[i]]) for i in range(2)})

    @pytest.mark.parametrize(
        "spelled",
        [
            "experts.experts.{}.linear_fc2.weight",
            "experts.linear_fc2.weight{}",
            "experts.local_experts.{}.linear_fc2.weight",
        ],
    )
    def test_experts_one_by_one_in_any_order(self, spelled):
        every = numbers(12, 3, 2)
        file = File()
        for e in (11, 0, 5, *range(1, 5), *range(6, 11)):
            file.add(f"{LM}.3.mlp.{spelled.format(e)}", every[e], [((0, 0), (3, 1)), ((0, 1), (3, 1))])
        same(file.canonical(), {f"{EXPERTS}.linear_fc2.weight": every})

    def test_experts_on_an_axis_stacked_and_not(self):
        every = numbers(2, 4, 3, 2)
        boxes = [((i, e, 0, 0), (1, 1, 3, 2)) for i in range(2) for e in range(4)]
        same(
            File().add(f"{LM}.mlp.experts.experts.linear_fc1.weight", every, boxes).canonical(),
            {f"{LM}.{i}.mlp.experts.experts.linear_fc1.weight": every[i] for i in range(2)},
        )
        same(
            File().add(f"{EXPERTS}.linear_fc1.weight", every[0]).canonical(), {f"{EXPERTS}.linear_fc1.weight": every[0]}
        )

    @pytest.mark.parametrize("spelled", ["experts.experts.{}.linear_fc1.weight_{}", "experts.linear_fc1.weight{}_{}"])
    def test_halves_of_experts(self, spelled):
        gate, up = numbers(3, 4, 2), numbers(3, 4, 2, start=100)
        file = File()
        for e in range(3):
            file.add(f"{LM}.3.mlp.{spelled.format(e, 'v')}", up[e]).add(f"{LM}.3.mlp.{spelled.format(e, 'w')}", gate[e])
        same(file.canonical(), {f"{EXPERTS}.linear_fc1.weight": np.concatenate([gate, up], axis=1)})

    def test_a_chunk_keeps_its_start(self):
        array = numbers(4, 3)
        spec = TensorSpec(f"{LM}.3.mlp.experts.local_experts.0.linear_fc1.weight", (4, 3), "float32")
        file = File()
        file.items.append(np.concatenate([np.full(7, -5), array.reshape(-1)]))
        file.stored.append(Stored(spec, [Chunk((0, 0), (4, 3), 0, 7)]))
        same(file.canonical(), {f"{EXPERTS}.linear_fc1.weight": array[None]})

    def test_chunks_of_several_layers(self):
        """One of three, one of a single, in a place of its own in its item, and another of two; in no order."""
        array = numbers(6, 3, 4)
        file, boxes = File(), [((4, 0, 0), (2, 3, 4)), ((0, 0, 0), (3, 3, 4)), ((3, 0, 0), (1, 3, 4))]
        file.add("a.layers.b", array, boxes)
        file.items[2] = np.concatenate([np.full(5, -5), file.items[2]])
        file.stored[0].chunks[2] = file.stored[0].chunks[2]._replace(start=5)
        same(file.canonical(), {f"a.layers.{i}.b": array[i] for i in range(6)})

    def test_what_the_metadata_say_stays_as_it_was(self):
        chunks = columns.columns_of([Chunk((0, 0), (2, 3), 0)], 2)
        _, found = canonical([Stored(TensorSpec("a.weight_v", (2, 3), "float32"), chunks)])
        assert list(found["a.weight"]) == [Chunk((2, 0), (2, 3), 0)]
        assert list(chunks) == [Chunk((0, 0), (2, 3), 0)]

    def test_more_chunks_than_any_file(self, monkeypatch):
        monkeypatch.setattr(columns, "MOST", 20)
        boxes = [((0, row), (4, 1)) for row in range(5)]
        file = File().add("a.layers.b", numbers(4, 5), boxes)
        same(file.canonical(), {f"a.layers.{i}.b": numbers(4, 5)[i] for i in range(4)})
        with pytest.raises(CorruptError, match=r"a\.layers\.b: has more than \d+ chunks"):
            File().add("a.layers.b", numbers(4, 6), [*boxes, ((0, 5), (4, 1))]).canonical()

    @pytest.mark.parametrize(
        ("name", "shape", "dtype"),
        [
            (f"{EXPERTS}.1.linear_fc2.weight", (3, 3), "float32"),
            (f"{EXPERTS}.1.linear_fc2.weight", (3, 2, 1), "float32"),
            (f"{EXPERTS}.1.linear_fc2.weight", (3, 2), "bfloat16"),
            (f"{EXPERTS}.linear_fc2.weight", (2, 4, 2), "float32"),
        ],
    )
    def test_forms_that_contradict_each_other(self, name, shape, dtype):
        file = File().add(f"{EXPERTS}.0.linear_fc2.weight", numbers(3, 2)).add(name, numbers(*shape), dtype=dtype)
        with pytest.raises(CorruptError) as caught:
            canonical(file.stored)
        assert (
            caught.value.what.startswith(name)
            and "does not fit" in caught.value.what
            and f"the rest of {EXPERTS}.linear_fc2.weight" in caught.value.what
        )

    def test_two_forms_of_one_tensor_overlap(self):
        file = File().add(f"{LM}.0.a.weight", numbers(3, 2)).add(f"{LM}.a.weight", numbers(1, 3, 2))
        specs, chunks = canonical(file.stored)
        assert tiling_fault(
            specs[f"{LM}.0.a.weight"].shape, [(c.offsets, c.lengths) for c in chunks[f"{LM}.0.a.weight"]]
        ).startswith("overlap")

    def test_a_gate_without_up_leaves_a_gap(self):
        specs, chunks = canonical(File().add("a.weight_w", numbers(3, 2)).stored)
        assert (
            tiling_fault(specs["a.weight"].shape, [(c.offsets, c.lengths) for c in chunks["a.weight"]])
            == "leave a gap: 6 of 12 elements are there"
        )

    def test_an_expert_missing_leaves_a_gap(self):
        specs, chunks = canonical(
            File()
            .add(f"{EXPERTS}.0.linear_fc2.weight", numbers(3, 2))
            .add(f"{EXPERTS}.2.linear_fc2.weight", numbers(3, 2))
            .stored
        )
        name = f"{EXPERTS}.linear_fc2.weight"
        assert (
            tiling_fault(specs[name].shape, [(c.offsets, c.lengths) for c in chunks[name]])
            == "leave a gap: 12 of 18 elements are there"
        )

    @pytest.mark.parametrize("offset", [-1, 2])
    def test_a_chunk_outside_the_stack(self, offset):
        stored = Stored(TensorSpec("a.layers.b", (2, 3), "float32"), [Chunk((offset, 0), (1, 3), 0)])
        with pytest.raises(CorruptError, match=r"a\.layers\.b: a chunk reaches outside"):
            canonical([stored])

    def test_more_layers_than_any_model_has(self):
        """Before they are enumerated."""
        with pytest.raises(CorruptError, match=r"a\.layers\.b: has 2305843009213693952 layers"):
            canonical([Stored(TensorSpec("a.layers.b", (2**61, 3), "float32"), [Chunk((0, 0), (2**61, 3), 0)])])

    def test_more_tensors_than_any_model_has(self, monkeypatch):
        monkeypatch.setattr("vlconv.converters.formats.keys.MOST_TENSORS", 1000)
        many = (Stored(TensorSpec(f"a{i}.layers.b", (100, 3), "float32"), []) for i in range(10**6))
        with pytest.raises(CorruptError, match=r"a10\.layers\.b: more than 1000 tensors"):
            canonical(many)

    @pytest.mark.parametrize("digits", ["9" * 5000, "²", "٣", "1_0"])
    @pytest.mark.parametrize(
        "key",
        [
            "a.layers.{}.b.weight",
            "m.experts.experts.{}.linear_fc1.weight",
            "m.experts.linear_fc1.weight{}",
            "m.experts.local_experts.{}.w.weight",
        ],
    )
    def test_digits_that_are_no_number(self, key, digits):
        how = fold(key.format(digits))
        assert (how.expert, how.half) == (None, "")

    def test_a_shape_of_many_axes_is_shown_short(self):
        file = File().add("a.weight_w", numbers(3, 2))
        file.stored.append(Stored(TensorSpec("a.weight_v", (3,) * 10**5, "float32"), []))
        with pytest.raises(CorruptError) as caught:
            canonical(file.stored)
        assert len(caught.value.what) < 600

    def test_a_stack_without_a_layer_axis(self):
        with pytest.raises(CorruptError, match=r"a\.layers\.b: has no layer axis"):
            canonical([Stored(TensorSpec("a.layers.b", (), "float32"), [])])


IN_PROJ, CONV1D = f"{LM}.0.self_attention.in_proj.weight", f"{LM}.0.self_attention.conv1d.weight"
SIZES = {"query": 2, "key": 2, "value": 4, "z": 4, "beta": 1, "alpha": 1}


def in_pieces(name=IN_PROJ, width=3, **changed):
    """A file with the pieces, last ones first, and the tensor that they are. `changed` pieces have other rows, or 0 for
    none at all; those that are none of the six come behind.
    """
    whole = numbers(14, width)
    pieces = dict(zip(SIZES, np.split(whole, [2, 4, 8, 12, 13]), strict=True))
    pieces |= {piece: numbers(rows, width) for piece, rows in changed.items()}
    file = File()
    for piece, rows in reversed(pieces.items()):
        if len(rows):
            file.add(f"{name}.{piece}", rows)
    return file, whole


class TestPieces:
    def test_in_any_order(self):
        file, whole = in_pieces()
        same(file.canonical(), {IN_PROJ: whole})

    def test_in_chunks_beside_others(self):
        """As two tensor-parallel ranks save them; a convolution's have three axes."""
        whole, norm = numbers(8, 1, 4), numbers(3, start=900)
        file = File().add(f"{LM}.0.self_attention.out_norm.weight", norm)
        for piece, first, rows in (("value", 4, 4), ("query", 0, 2), ("key", 2, 2)):
            half = rows // 2
            boxes = [((0, 0, 0), (half, 1, 4)), ((half, 0, 0), (half, 1, 4))]
            file.add(f"{CONV1D}.{piece}", whole[first : first + rows], boxes)
        same(file.canonical(), {CONV1D: whole, f"{LM}.0.self_attention.out_norm.weight": norm})

    def test_of_stacked_layers(self):
        whole = numbers(2, 8, 1, 4)
        file = File()
        for piece, rows in zip(("query", "key", "value"), np.split(whole, [2, 4], axis=1), strict=True):
            file.add(f"{LM}.self_attention.conv1d.weight.{piece}", rows)
        names = [f"{LM}.{i}.self_attention.conv1d.weight" for i in range(2)]
        same(file.canonical(), dict(zip(names, whole, strict=True)))
        specs, _ = canonical(file.stored)
        assert keys.in_pieces(file.stored, specs) == frozenset(names)

    def test_which_came_in_pieces(self):
        file, _ = in_pieces()
        file.add(CONV1D, numbers(8, 1, 4))
        specs, _ = canonical(file.stored)
        assert specs.keys() == {IN_PROJ, CONV1D}
        assert keys.in_pieces(file.stored, specs) == {IN_PROJ}

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"z": 0}, f"{IN_PROJ}: lacks its pieces z"),
            ({"query": 0, "beta": 0}, f"{IN_PROJ}: lacks its pieces query, beta"),
            ({"gate": 2}, f"{IN_PROJ}.gate: {IN_PROJ} has no such piece: query, key, value, z, beta, alpha are all"),
        ],
    )
    def test_missing_and_surplus(self, changed, says):
        with pytest.raises(CorruptError) as caught:
            canonical(in_pieces(**changed)[0].stored)
        assert caught.value.what == says

    @pytest.mark.parametrize(
        ("shape", "dtype", "says"),
        [
            ((2, 4), "float32", r"query: \[2, 4\] float32 does not fit \[1, 3\] float32, another piece of"),
            ((2, 3, 1), "float32", r"query: \[2, 3, 1\] float32 does not fit"),
            ((2, 3), "bfloat16", r"query: \[2, 3\] bfloat16 does not fit \[1, 3\] float32"),
            ((0, 3), "float32", r"query \[0, 3\]: has no rows"),
            ((), "float32", r"query \[\]: has no rows"),
        ],
    )
    def test_that_do_not_fit(self, shape, dtype, says):
        file, _ = in_pieces(query=0)
        file.stored.append(Stored(TensorSpec(f"{IN_PROJ}.query", shape, dtype), []))
        with pytest.raises(CorruptError, match=says):
            canonical(file.stored)

    @pytest.mark.parametrize(("first", "rows"), [(1, 2), (-1, 1), (0, 4), (4, 1)])
    def test_a_chunk_that_would_be_another_piece(self, first, rows):
        file, _ = in_pieces(query=0)
        spec = TensorSpec(f"{IN_PROJ}.query", (2, 3), "float32")
        file.stored.append(Stored(spec, [Chunk((first, 0), (rows, 3), 0)]))
        with pytest.raises(CorruptError, match=r"in_proj\.weight\.query: a chunk reaches outside"):
            canonical(file.stored)

    @pytest.mark.parametrize("before", [True, False])
    def test_whole_and_in_pieces(self, before):
        file, whole = in_pieces()
        file.add(IN_PROJ, whole)
        with pytest.raises(CorruptError, match=r"in_proj\.weight is there whole and in pieces"):
            canonical(file.stored[::-1] if before else file.stored)

    def test_stacked_and_by_itself(self):
        file, _ = in_pieces()
        file.add(f"{LM}.self_attention.in_proj.weight.key", numbers(1, 2, 3))
        with pytest.raises(CorruptError, match=r"in_proj\.weight\.key are the same piece"):
            canonical(file.stored)

    def test_more_than_any_model_has(self, monkeypatch):
        monkeypatch.setattr("vlconv.converters.formats.keys.MOST_TENSORS", 1000)
        keys_of = "a{}.layers.self_attention.conv1d.weight.key".format
        many = (Stored(TensorSpec(keys_of(i), (100, 3), "float32"), []) for i in range(20))
        with pytest.raises(CorruptError, match=r"a10\.layers\.self_attention\S+: more than 1000 tensors"):
            canonical(many)

    def test_long_names_are_shown_short(self):
        file = File().add(f"{IN_PROJ}.{'x' * 10**5}", numbers(3, 2))
        with pytest.raises(CorruptError) as caught:
            canonical(file.stored)
        assert len(caught.value.what) < 600


def test_heads_keep_their_numbers():
    """They are on one stage; layers before them are counted by themselves."""
    layer, head = f"{LM}.0.w", "language_model.mtp.layers.1.mtp_model_layer.w"
    heads = [head.replace(".1.", ".0."), head]
    starts = first_layers([State(0, 0, "a", [layer]), State(1, 0, "b", [layer, *heads])])
    assert renumbered(head, starts, 1, 0) == head
    assert renumbered(layer, starts, 1, 0) == f"{LM}.1.w"


@pytest.mark.parametrize("number", ["²", "٣", "1" * 5000])
def test_numbers_of_another_kind_number_no_layer(number):
    """Python's int takes some of these digits for numbers, refuses others, and all of them when there are too many."""
    name = f"language_model.decoder.layers.{number}.mlp.linear_fc1.weight"
    assert fold(name).stacked
    state = State(0, 0, "x.pt", [name])
    assert first_layers([state]) == {}
    assert renumbered(name, {}, 0, 0) == name
    tower = f"vision_model.blocks.layers.{number}.self_attention.linear_qkv.weight"
    assert shape_facts({name: (4, 4), tower: (4, 4)}, "vision_model.") == {"tied": True, "vision.mergers": 0}
