"""Damaged and contradictory Megatron checkpoints:
each refused, saying which file or tensor and what to do, with nothing written.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace

import pytest
import torch
from references import differing, read_hf
from refusing import edit_config, edit_metadata, flip, refused
from tiny import write_tiny_hf
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError, MismatchError, NotACheckpoint, UnsupportedError, VlconvError

SAMPLED = 2

EMBEDDING, OUTPUT = "language_model.embedding.word_embeddings.weight", "language_model.output_layer.weight"
QKV, FC1 = (
    "language_model.decoder.layers.self_attention.linear_qkv.weight",
    "language_model.decoder.layers.mlp.linear_fc1.weight",
)
NORM = "language_model.decoder.final_layernorm.weight"
PROJECTOR = "vision_model.merger.linear_fc2.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model in both forms: hf/ and mcore/, its vocabulary padded from 300 to 384 rows."""
    work = tmp_path_factory.mktemp("model")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore", Hf2McoreOptions(make_vocab_size_divisible_by=128))
    return work


@pytest.fixture
def work(tmp_path, model):
    """A copy of it to damage."""
    shutil.copytree(model / "mcore", tmp_path / "mcore")
    return tmp_path


@pytest.fixture
def release(work):
    return work / "mcore" / "release"


def no(work, **expected):
    options = expected.pop("options", None)
    return refused(mcore2hf, work / "mcore", work / "out", *([options] if options else []), **expected)


def edit(release, **changes):
    """Change entries of the metadata: name -> function of the entry; None takes it away."""

    def change(metadata):
        for name, how in changes.items():
            if how is None:
                del metadata.state_dict_metadata[name]
            else:
                how(metadata.state_dict_metadata[name])

    edit_metadata(release, change)


def place(release, name, number=0):
    """Offset of an item in the only data file."""
    found = []
    edit_metadata(release, lambda m: found.extend(i.offset for k, i in m.storage_data.items() if k.fqn == name))
    return sorted(found)[number]


class TestNoCheckpoint:
    def test_the_undamaged_copy_is_fine(self, work, model):
        mcore2hf(work / "mcore", work / "out")
        assert differing(read_hf(work / "out"), read_hf(model / "hf")) == []

    def test_no_directory(self, tmp_path):
        refused(
            mcore2hf,
            tmp_path / "gone",
            tmp_path / "out",
            fault=NotACheckpoint,
            says=f"{tmp_path / 'gone'}: does not exist",
            hint="Give the directory",
        )

    def test_a_file(self, work):
        refused(
            mcore2hf,
            work / "mcore" / "release" / "common.pt",
            work / "out",
            fault=NotACheckpoint,
            says="common.pt: a file of a Megatron checkpoint",
            hint=f"Give {work / 'mcore' / 'release'}.",
        )

    def test_an_empty_directory(self, tmp_path):
        (tmp_path / "mcore").mkdir()
        no(tmp_path, fault=NotACheckpoint, says="no Megatron checkpoint there", hint="Looked for .metadata")

    def test_a_hugging_face_directory(self, model, tmp_path):
        refused(
            mcore2hf,
            model / "hf",
            tmp_path / "out",
            fault=NotACheckpoint,
            says=f"{model / 'hf'}: no Megatron checkpoint there, but a Hugging Face model",
            hint=f"vlconv hf2mcore {model / 'hf'}",
        )

    @pytest.mark.parametrize("missing", [".metadata", "metadata.json"])
    def test_unfinished(self, work, release, missing):
        (release / missing).unlink()
        no(work, fault=NotACheckpoint, says=f"{release}: {missing} is missing", hint="The save was interrupted")

    def test_only_data_files(self, work, release):
        for path in release.iterdir():
            if path.suffix != ".distcp":
                path.unlink()
        no(work, fault=NotACheckpoint, says=f"{release}: .metadata is missing", hint="The save was interrupted")

    def test_a_tracker_of_garbage(self, work):
        (work / "mcore" / "latest_checkpointed_iteration.txt").write_text("ninety")
        no(
            work,
            fault=NotACheckpoint,
            says="latest_checkpointed_iteration.txt: holds neither a number nor 'release'",
            hint="give the iteration's own directory",
        )

    def test_a_tracker_of_what_was_pruned(self, work):
        (work / "mcore" / "latest_checkpointed_iteration.txt").write_text("90")
        no(
            work,
            fault=NotACheckpoint,
            says="iter_0000090: is missing, though",
            hint="The save is incomplete, or was pruned",
        )

    def test_several_iterations(self, work, release):
        (work / "mcore" / "latest_checkpointed_iteration.txt").unlink()
        shutil.copytree(release, work / "mcore" / "iter_0000005")
        no(
            work,
            fault=NotACheckpoint,
            says=("holds several checkpoints", "iter_0000005", "release"),
            hint="--iteration N",
        )
        no(
            work,
            options=Mcore2HfOptions(iteration=6),
            fault=NotACheckpoint,
            says="no Megatron checkpoint of iteration 6 there",
        )
        assert (
            mcore2hf(work / "mcore", work / "out", Mcore2HfOptions(iteration=5, dry_run=True))
            .data["source"]
            .endswith("iter_0000005")
        )


class TestFiles:
    def test_missing(self, work, release):
        (release / "__0_0.distcp").unlink()
        no(
            work,
            fault=CorruptError,
            says=("__0_0.distcp is missing", "pieces of the model are in it"),
            hint="Copy the missing file",
        )

    @pytest.mark.parametrize("keep", [0, 1000, -1000, -1])
    def test_truncated(self, work, release, keep):
        os.truncate(release / "__0_0.distcp", keep if keep >= 0 else end_of_tensors(release) + keep)
        no(
            work,
            fault=CorruptError,
            says=("__0_0.distcp is cut short", "where .metadata says at least"),
            hint="Copy the file again",
        )

    @pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "common.pt"])
    @pytest.mark.parametrize("kind", ["folder", "fifo"])
    def test_no_regular_file(self, work, release, name, kind):
        (release / name).unlink()
        (release / name).mkdir() if kind == "folder" else os.mkfifo(release / name)
        if name == "common.pt":  # Megatron's newest has none, and what is no file is none
            mcore2hf(work / "mcore", work / "out")
        elif name == ".metadata":
            no(work, fault=NotACheckpoint, says=".metadata is missing")
        else:
            no(work, fault=CorruptError, says="__0_0.distcp is not a regular file")

    @pytest.mark.parametrize("name", [".metadata", "common.pt"])
    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04.", b"cposix\nsystem\n(S'true'\ntR."])
    def test_garbage(self, work, release, name, content):
        (release / name).write_bytes(content)
        no(work, fault=UnsupportedError if name == "common.pt" and content == b"\x80\x04." else CorruptError, says=name)

    @pytest.mark.parametrize("name", [".metadata", "common.pt"])
    def test_truncated_pickles(self, work, release, name):
        os.truncate(release / name, (release / name).stat().st_size // 2)
        no(work, fault=CorruptError, says=name)

    def test_another_checkpoints_data(self, work, release, tmp_path):
        """Of the same names and sizes, so nothing but the sums... and these are right: it is another model, wholly."""
        data = (release / "__0_0.distcp").read_bytes()
        first, second = place(release, QKV, 0), place(release, FC1, 0)
        swapped = bytearray(data)
        swapped[first : first + 4096], swapped[second : second + 4096] = (
            data[second : second + 4096],
            data[first : first + 4096],
        )
        (release / "__0_0.distcp").write_bytes(swapped)
        no(work, fault=CorruptError, says="__0_0.distcp")

    @pytest.mark.parametrize("name", ["../data", "/dev/zero", "a/b", ".."])
    def test_a_file_elsewhere(self, work, release, name):
        (work / "mcore" / "data").write_bytes((release / "__0_0.distcp").read_bytes())
        edit_metadata(release, lambda m: [setattr(info, "relative_path", name) for info in m.storage_data.values()])
        no(work, fault=CorruptError, says=("names the file", "not a plain file name"))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("run_config.yaml", "model: {a: [}"),
            ("run_config.yaml", "model: !!python/object/apply:os.system [true]"),
            ("args.json", "{"),
            ("mca_config.json", "[1]"),
        ],
    )
    def test_files_beside_it(self, work, release, name, content):
        (release / name).write_text(content)
        no(work, fault=CorruptError, says=name)


def end_of_tensors(release):
    """Where the last item of a tensor ends; byte entries that nobody reads come after."""
    ends = []
    edit_metadata(
        release,
        lambda m: ends.extend(i.offset + i.length for k, i in m.storage_data.items() if "_extra_state" not in k.fqn),
    )
    return max(ends)


class TestTensors:
    def test_missing(self, work, release):
        edit(release, **{NORM: None})
        no(
            work,
            fault=MismatchError,
            says=("1 missing:", f"  {NORM}"),
            hint="Is the reference config that of this model",
        )

    def test_surplus(self, work, release):
        """A copy of another tensor, with an item of its own at the end of the file."""

        def double(metadata):
            data = release / "__0_0.distcp"
            metadata.state_dict_metadata["language_model.decoder.more.weight"] = metadata.state_dict_metadata[NORM]
            index = next(k for k in metadata.storage_data if k.fqn == NORM)
            info = metadata.storage_data[index]
            end, item = data.stat().st_size, data.read_bytes()[info.offset : info.offset + info.length]
            with data.open("ab") as file:
                file.write(item)
            metadata.storage_data[MetadataIndex("language_model.decoder.more.weight", index.offset, index.index)] = (
                replace(info, offset=end)
            )

        edit_metadata(release, double)
        no(work, fault=MismatchError, says=("1 not expected:", "language_model.decoder.more.weight"))

    def test_a_wrong_shape(self, work, release):
        def narrower(entry):
            entry.size = torch.Size([32])
            entry.chunks = [ChunkStorageMetadata(torch.Size([0]), torch.Size([32]))]

        edit(release, **{NORM: narrower})
        no(
            work,
            fault=MismatchError,
            says=(f"{NORM} is [32]", "the config makes it [64]"),
            hint="text_config.hidden_size = 64",
        )

    def test_another_shape_in_the_item(self, work, release):
        def wider(entry):
            entry.size = torch.Size([4, 64, 256])
            entry.chunks = [ChunkStorageMetadata(torch.Size(c.offsets), torch.Size([1, 64, 256])) for c in entry.chunks]

        edit(release, **{QKV: wider})
        edit_config(work / "mcore" / "huggingface", lambda c: None)
        no(
            work,
            fault=MismatchError,
            says=("linear_qkv.weight is [64, 256]", "the config makes it [256, 64]"),
            hint="the shape of the transpose",
        )

    @pytest.mark.parametrize(
        ("dtype", "fault"),
        [
            (torch.int8, UnsupportedError),
            (torch.uint8, UnsupportedError),
            (torch.int64, UnsupportedError),
            (torch.float8_e4m3fn, UnsupportedError),
            (torch.complex64, UnsupportedError),
        ],
    )
    def test_a_dtype_that_is_no_weights(self, work, release, dtype, fault):
        edit(release, **{FC1: lambda entry: setattr(entry, "properties", TensorProperties(dtype=dtype))})
        no(work, fault=fault, says=(FC1, f"has dtype {str(dtype).removeprefix('torch.')}"), hint="unquantised")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_another_dtype_in_the_item(self, work, release, dtype):
        edit(release, **{NORM: lambda entry: setattr(entry, "properties", TensorProperties(dtype=dtype))})
        no(
            work,
            fault=CorruptError,
            says=(
                "__0_0.distcp",
                NORM,
                "is bfloat16 [64]",
                f".metadata states {str(dtype).removeprefix('torch.')} [64]",
            ),
        )

    def test_halves_of_different_dtypes(self, work, release):
        def split(metadata):
            for half, dtype in (("w", torch.bfloat16), ("v", torch.float32)):
                entry = pickled_copy(metadata.state_dict_metadata[FC1])
                entry.properties = TensorProperties(dtype=dtype)
                metadata.state_dict_metadata[f"{FC1}_{half}"] = entry
            del metadata.state_dict_metadata[FC1]

        edit_metadata(release, split)
        no(work, fault=CorruptError, says=("linear_fc1.weight", "does not fit", "float32", "bfloat16"))

    def test_a_stack_of_astronomical_height(self, work, release):
        """Refused before its layers are enumerated."""

        def taller(entry):
            entry.size = torch.Size([2**61, 192, 64])
            entry.chunks = [ChunkStorageMetadata(torch.Size([0, 0, 0]), entry.size)]

        edit(release, **{FC1: taller})
        no(work, fault=CorruptError, says=f"{FC1}: has {2**61} layers, which no model has", hint="damaged or hostile")

    def test_a_shape_of_very_many_axes(self, work, release):
        edit(release, **{NORM: lambda entry: (setattr(entry, "size", torch.Size([3] * 10**4)), entry.chunks.clear())})
        error = no(work, fault=MismatchError, says=f"{NORM} is [3, 3, 3", hint="")
        assert len(str(error)) < 2000

    def test_a_critic(self, work, release):
        def one_row(entry):
            entry.size = torch.Size([1, 64])
            entry.chunks = [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([1, 64]))]

        edit(release, **{OUTPUT: one_row})
        no(work, fault=UnsupportedError, says=(OUTPUT, "this is a critic or reward model"), hint="Only language models")

    def test_embedding_and_output_layer_of_different_length(self, work, release):
        def longer(entry):
            entry.size = torch.Size([512, 64])
            entry.chunks = [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([512, 64]))]

        edit(release, **{OUTPUT: longer})
        no(work, fault=MismatchError, says="embedding and output layer have different numbers of rows: 384 and 512")


def pickled_copy(value):
    import pickle

    return pickle.loads(pickle.dumps(value))


class TestChunks:
    def test_one_without_a_place(self, work, release):
        def lose(metadata):
            del metadata.storage_data[next(k for k in metadata.storage_data if k.fqn == QKV and k.offset[0] == 2)]

        edit_metadata(release, lose)
        no(
            work,
            fault=CorruptError,
            says=("layers.2.self_attention.linear_qkv.weight", "leave a gap: 0 of 16384"),
            hint="save it again",
        )

    def test_a_chunk_too_few(self, work, release):
        edit(
            release,
            **{
                PROJECTOR: lambda entry: setattr(
                    entry, "chunks", [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([60, 128]))]
                )
            },
        )
        no(work, fault=CorruptError, says=(f"the chunks of {PROJECTOR} [64, 128]", "leave a gap: 7680 of 8192"))

    @pytest.mark.parametrize(("offset", "says"), [(1, "the items of two chunks of"), (7, "reaches outside")])
    def test_a_chunk_moved(self, work, release, offset, says):
        """Two chunks claim layer 1, or one a layer that is not there."""

        def move(metadata):
            entry = metadata.state_dict_metadata[QKV]
            at = next(i for i, c in enumerate(entry.chunks) if c.offsets[0] == 2)
            entry.chunks[at].offsets = torch.Size([offset, 0, 0])
            index = next(k for k in metadata.storage_data if k.fqn == QKV and k.offset[0] == 2)
            metadata.storage_data[MetadataIndex(QKV, torch.Size([offset, 0, 0]), at)] = metadata.storage_data.pop(index)

        edit_metadata(release, move)
        no(work, fault=CorruptError, says=("self_attention.linear_qkv.weight", says))

    def test_a_larger_chunk_than_its_tensor(self, work, release):
        edit(
            release,
            **{
                PROJECTOR: lambda entry: setattr(
                    entry, "chunks", [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([65, 128]))]
                )
            },
        )
        no(work, fault=CorruptError, says=(PROJECTOR, "reach outside at [0, 0] + [65, 128]"))

    @pytest.mark.parametrize("change", [{"offset": 1 << 40}, {"length": 1 << 40}, {"length": 10}, {"offset": 64}])
    def test_an_item_elsewhere_in_the_file(self, work, release, change):
        def move(metadata):
            info = next(i for k, i in metadata.storage_data.items() if k.fqn == NORM)
            for name, value in change.items():
                setattr(info, name, value)

        edit_metadata(release, move)
        no(work, fault=CorruptError, says="__0_0.distcp")


PADDING = -64 * 2 * 8  # bits before the end of the embedding's data: its last row


class TestFlippedBits:
    @pytest.mark.parametrize(
        ("name", "number", "bit"),
        [
            (QKV, 0, 0),
            (QKV, 3, 8191),
            (FC1, 1, 40000),
            (NORM, 0, 0),
            (NORM, 0, 64 * 16 - 1),
            (EMBEDDING, 0, 5),
            (EMBEDDING, 0, 384 * 64 * 16 + PADDING),
            (OUTPUT, 0, 301 * 64 * 16),
            (OUTPUT, 0, 384 * 64 * 16 - 1),
        ],
    )
    def test_in_a_tensor_or_its_padding(self, work, release, name, number, bit):
        """An item's numbers begin at its byte 512 or a multiple of 64 after that; where, its zip says."""
        begin = place(release, name, number)
        data = begin + data_offset(release / "__0_0.distcp", begin)
        flip(release / "__0_0.distcp", 8 * data + bit)
        no(
            work,
            fault=CorruptError,
            says=(f"{release / '__0_0.distcp'}: bytes {data} to", "are damaged: CRC-32"),
            hint="copy it again",
        )

    @pytest.mark.parametrize("seed", range(16))
    def test_anywhere(self, work, release, model, seed):
        """It is refused, or harmless: a name that nobody reads, a filler, an optional field."""
        random_ = random.Random(seed)
        begin = place(release, NORM if seed % 2 else PROJECTOR)
        head = data_offset(release / "__0_0.distcp", begin)
        tail = head + (128 if seed % 2 else 64 * 128 * 2)
        byte = begin + (random_.randrange(head) if seed % 4 < 2 else tail + random_.randrange(300))
        flip(release / "__0_0.distcp", 8 * byte + random_.randrange(8))
        outcome(work, model)

    @pytest.mark.parametrize("name", [".metadata", "common.pt"])
    @pytest.mark.parametrize("seed", range(6))
    def test_in_the_side_files(self, work, release, model, name, seed):
        flip(release / name, random.Random(seed).randrange(8 * (release / name).stat().st_size))
        outcome(work, model)


def outcome(work, model):
    """Refused with nothing left, or converted and right."""
    try:
        mcore2hf(work / "mcore", work / "out")
    except VlconvError:
        assert sorted(p.name for p in work.iterdir()) == ["mcore"]
    else:
        assert differing(read_hf(work / "out"), read_hf(model / "hf")) == []


def data_offset(path, begin):
    """Where an item's numbers begin in it: after the header of the member data/0."""
    import struct

    with path.open("rb") as file:
        file.seek(begin)
        head = file.read(4096)
    at = head.index(b"archive/data/0")
    return at + len(b"archive/data/0") + struct.unpack_from("<H", head, at - 2)[0]
