"""torch.save zips: what torch writes is found, what we write torch loads, and every trick is refused."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
import zlib

import pytest
import torch

from vlconv.converters.errors import CorruptError, SourceError, UnsupportedError, naming
from vlconv.converters.formats.pickles.closed_unpickler import TensorRef
from vlconv.converters.formats.pickles.tensor_pickle import write_tensor_pickle
from vlconv.converters.formats.zips import read as zips
from vlconv.converters.formats.zips.items import bytes_item, item_parts
from vlconv.converters.tensors.dtypes import ITEMSIZE

AROUND = (b"before", b"after!")
SHAPES = [(), (0,), (1,), (3, 4), (5, 1, 300), (2, 0, 3), (2, 3, 4, 5, 6)]


@pytest.fixture
def opened(tmp_path):
    """Puts bytes in the middle of a file: (fd, offset, length)."""
    fds = []

    def put(data):
        path = tmp_path / f"{len(fds)}.distcp"
        path.write_bytes(AROUND[0] + data + AROUND[1])
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1], len(AROUND[0]), len(data)

    yield put
    for fd in fds:
        os.close(fd)


def saved(value, **kwargs):
    buffer = io.BytesIO()
    torch.save(value, buffer, **kwargs)
    return buffer.getvalue()


def filled(dtype, shape):
    return torch.randint(0, 2, shape).to(getattr(torch, dtype))


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def item(tensor):
    data = raw(tensor)
    parts = item_parts(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    return parts.head(zlib.crc32(data)) + data + parts.tail(zlib.crc32(data))


def zipped(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def like_torch(pickled=None, data=bytes(24), prefix="archive/", **more):
    names = {
        "data.pkl": pickled or write_tensor_pickle("float32", (2, 3)),
        "byteorder": b"little",
        "data/0": data,
        "version": b"3\n",
        **more,
    }
    return [(prefix + name, content) for name, content in names.items() if content is not None]


@pytest.mark.parametrize("dtype", ITEMSIZE)
def test_both_ways_with_torch(dtype, opened):
    for shape in SHAPES:
        tensor = filled(dtype, shape)
        data = raw(tensor)
        for built in (saved(tensor), item(tensor)):
            fd, offset, length = opened(built)
            found = zips.find_tensor(fd, offset, length)
            assert found == (dtype, shape, found.data_offset, len(data), zlib.crc32(data) or None, 0, None)
            assert (found.data_offset - offset) % 64 == 0
            assert os.pread(fd, len(data), found.data_offset) == data
        again = torch.load(io.BytesIO(built), weights_only=True)
        assert again.dtype == tensor.dtype and again.shape == tensor.shape and raw(again) == data


@pytest.mark.parametrize(
    "value",
    [torch.nn.Parameter(torch.ones(2, 3)), torch.ones(2, 3).expand(1, 2, 3), torch.ones(2, 3, requires_grad=True)],
)
def test_other_forms_of_a_whole_tensor(value, opened):
    found = zips.find_tensor(*opened(saved(value)))
    assert found[:2] == ("float32", tuple(value.shape))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(protocol, opened):
    assert zips.find_tensor(
        *opened(saved(torch.ones(300, 70000, dtype=torch.uint8)[:, :9].clone(), pickle_protocol=protocol))
    )[:2] == ("uint8", (300, 9))


def test_lengths_do_not_depend_on_the_sum():
    parts = item_parts("bfloat16", (7, 11))
    for crc in (0, 1, 0xFFFFFFFF):
        assert (len(parts.head(crc)), len(parts.tail(crc))) == (parts.data_offset, parts.tail_nbytes)
    assert parts.nbytes == parts.data_offset + 7 * 11 * 2 + parts.tail_nbytes


def test_zip_tools_accept_our_items():
    with zipfile.ZipFile(io.BytesIO(item(torch.ones(3)))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["archive/data.pkl", "archive/byteorder", "archive/version", "archive/data/0"]


def test_bytes_item_is_a_list_of_one_empty_tensor():
    (only,) = torch.load(io.BytesIO(bytes_item()), weights_only=True)
    assert only.dtype == torch.uint8 and only.shape == (0,)
    assert zipfile.ZipFile(io.BytesIO(bytes_item())).testzip() is None


def test_beyond_4_gib(tmp_path):
    shape = (3, 1 << 30)
    parts = item_parts("bfloat16", shape)
    path = tmp_path / "big"
    with path.open("wb") as file:  # sparse: takes no room
        file.write(parts.head(0))
        file.seek(parts.data_offset + parts.data.nbytes)
        file.write(parts.tail(0))
    with path.open("rb") as file:
        assert zips.find_tensor(file.fileno(), 0, parts.nbytes) == (
            "bfloat16",
            shape,
            parts.data_offset,
            6 << 30,
            None,
            0,
            None,
        )
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("archive/data/0").file_size == 6 << 30
    tensor = torch.load(path, mmap=True, weights_only=True)
    assert tensor.shape == shape and tensor[2, -1] == 0


@pytest.mark.parametrize(
    "value", [torch.arange(12).reshape(3, 4).t(), torch.arange(12)[3:6], torch.arange(12)[:6], torch.ones(1).expand(4)]
)
def test_views_are_refused_in_items_and_placed_elsewhere(value, opened):
    fd, offset, length = opened(saved(value))
    with pytest.raises(UnsupportedError, match="part of a larger storage, or a tensor not stored row by row"):
        zips.find_tensor(fd, offset, length)
    ref = TensorRef(
        "0",
        str(value.dtype)[6:],
        value.untyped_storage().nbytes() // value.itemsize,
        value.storage_offset(),
        tuple(value.shape),
        value.stride(),
    )
    found = zips.place(ref, zips.find_members(fd, offset, length))
    stored = os.pread(fd, found.nbytes, found.data_offset)
    assert zlib.crc32(stored) == found.crc
    numbers = torch.frombuffer(bytearray(stored), dtype=value.dtype)
    assert torch.equal(
        numbers.as_strided(value.shape, found.strides or torch.empty(value.shape).stride(), found.start), value
    )


def test_any_folder_name(opened):
    for prefix in ("model_optim_rng/", "x/", ""):
        members = zips.find_members(*opened(zipped(like_torch(prefix=prefix))))
        assert set(members) == {"data.pkl", "byteorder", "data/0", "version"}
        assert members["data/0"].nbytes == 24


def test_a_sum_of_zero_is_none(opened):
    parts = item_parts("uint8", (5,))
    assert zips.find_tensor(*opened(parts.head(0) + b"abcde" + parts.tail(0))).crc is None


def view(offset, shape, stride, numel=6):
    """The pickle of a tensor with those figures."""

    def number(n):
        return b"\x8a\x08" + n.to_bytes(8, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + number(numel) + b"tQ"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + numbers(shape)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def test_the_pickle_made_here_is_fine(opened):
    assert zips.find_tensor(*opened(zipped(like_torch(view(0, (2, 3), (3, 1)))))).shape == (2, 3)


@pytest.mark.parametrize(
    ("pickled", "text"),
    [
        (view(1, (2, 3), (3, 1)), "in a storage of only 6"),
        (view(0, (3, 3), (3, 1)), "in a storage of only 6"),
        (view(0, (2, 3), (4, 1)), "in a storage of only 6"),
        (view(0, (2, 3), (1 << 62, 1)), "in a storage of only 6"),
        (view(-1, (2, 3), (3, 1)), "damaged"),
        (view(0, (2, -3), (3, 1)), "damaged"),
        (view(0, (2, 3), (-3, 1)), "damaged"),
        (view(0, (2, 3), (3,)), "damaged"),
        (view(0, (2, 3), (3, 1), numel=-1), "damaged"),
        (view(0, (2, 3), (3, 1), numel=7), "24 bytes where its data.pkl says 7 elements"),
        (view(0, (2, 3), (3, 1), numel=1 << 62), "24 bytes where"),
        (
            view(0, (1 << 31, 1 << 31, 4), (0, 0, 1)).replace(b"FloatStorage", b"Float16Store"),
            "refers to torch.Float16Store",
        ),
        (view(0, (2, 3), (3, 1)) + b".", "damaged"),
        (view(0, (2, 3), (3, 1))[:-5], "damaged"),
        (b"\x80\x02N.", "opcode 0x4e"),
        (b"\x80\x02K\x01.", "something else than one tensor"),
        (b"\x80\x02]" + view(0, (2, 3), (3, 1))[2:-1] + b"a.", "opcode 0x5d"),
        (
            b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.",
            "refers to posix.system, which has no place in a tensor; nothing in it was run",
        ),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "refers to posix.system"),
        (b"\x80\x02c\x1b[2Jx\ny\n.", r"refers to \\x1b"),
        (b"\x80\x02cos\xff\nsystem\n.", "damaged"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "opcode 0x72"),
        (b"\x80\x02" + b"(" * 5000, "damaged"),
        (b"\x80\x02" + b"K\x01\x85" * 9000, "no data.pkl of a single tensor"),
        (b"\x80\x02K\x01" + b"\x85" * 8000 + b".", "something else"),
        (b"x", "damaged"),
    ],
)
def test_odd_pickles_in_items(pickled, text, opened):
    with pytest.raises(CorruptError, match=text):
        zips.find_tensor(*opened(zipped(like_torch(pickled))))


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (like_torch(byteorder=b"big"), "byte order 'big'"),
        (like_torch(byteorder=b"little-ish"), "byte order"),
        (like_torch(data=None), "no member data/0"),
        (like_torch(data=bytes(20)), "20 bytes where"),
        (like_torch()[1:], "no data.pkl"),
        ([*like_torch(), ("other/x", b"")], "more than one folder"),
        ([], "no data.pkl"),
    ],
)
def test_odd_members(members, text, opened):
    with pytest.raises(SourceError, match=text):
        zips.find_tensor(*opened(zipped(members)))


def test_compressed_and_encrypted_members(opened):
    with pytest.raises(UnsupportedError, match="compressed or encrypted"):
        zips.find_tensor(*opened(zipped(like_torch(data=bytes(2400)), zipfile.ZIP_DEFLATED)))
    data = bytearray(zipped(like_torch()))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UnsupportedError, match="compressed or encrypted"):
        zips.find_tensor(*opened(bytes(data)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names(opened):
    with pytest.raises(CorruptError, match="two members of the name data/0"):
        zips.find_tensor(*opened(zipped([*like_torch(), ("archive/data/0", bytes(24))])))


def patched(at, form, value):
    """A zip with one field of the last central record (data/0 of 24 bytes, then version) overwritten."""
    data = bytearray(zipped(like_torch()))
    struct.pack_into(form, data, data.rindex(b"PK\x01\x02") + at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (patched(42, "<I", 0), "contradicts its central directory"),
        (patched(42, "<I", 1 << 30), "outside itself"),
        (patched(42, "<I", 0xFFFFFFFF), "zip64"),
        (patched(20, "<Q", 100 << 32 | 100), "contradicts its central directory"),
        (patched(20, "<I", 100), "compressed"),
        (patched(28, "<H", 5000), "damaged central directory"),
        (patched(30, "<H", 5000), "damaged central directory"),
        (patched(34, "<H", 1), "damaged central directory"),
        (zipped(like_torch()) + b"x", "not a torch.save file"),
        (zipped(like_torch())[:-1], "not a torch.save file"),
        (b"x" + zipped(like_torch()), "does not fit"),
        (zipped(like_torch())[:-22], "not a torch.save file"),
        (zipped(like_torch())[-22:], "does not fit"),
        (b"", "not a torch.save file"),
        (b"PK", "not a torch.save file"),
        (pickle.dumps([1]) * 9, "not a torch.save file"),
    ],
)
def test_damaged_zips(data, text, opened):
    with pytest.raises(SourceError, match=text):
        zips.find_tensor(*opened(data))


def test_overlapping_members(opened):
    # The member "version" is made to begin inside the bytes of data/0, where a second local header was planted.
    hidden = zipped([("archive/version", b"3\n")])[:47]
    data = bytearray(zipped(like_torch(view(0, (64,), (1,), numel=64), data=hidden.ljust(256, b"\0"))))
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, data.index(hidden))
    with pytest.raises(CorruptError, match="overlapping members"):
        zips.find_tensor(*opened(bytes(data)))


def test_two_end_records_that_differ(opened):
    data = bytearray(saved(torch.ones(2, 3)))
    struct.pack_into("<H", data, len(data) - 14, 6)
    struct.pack_into("<H", data, len(data) - 12, 6)
    with pytest.raises(CorruptError, match="contradict each other"):
        zips.find_tensor(*opened(bytes(data)))


def test_truncation_anywhere(opened):
    for whole in (saved(torch.ones(40)), item(torch.ones(40))):
        for length in range(0, len(whole), 37):
            with pytest.raises(SourceError):
                zips.find_tensor(*opened(whole[:length]))


def test_slice_longer_than_the_file(opened):
    fd, offset, length = opened(saved(torch.ones(400)))
    with pytest.raises(CorruptError):
        zips.find_tensor(fd, offset, length + 5000)
    with pytest.raises(CorruptError):
        zips.find_tensor(fd, offset + 100_000, length)


def test_random_damage_never_gives_a_wrong_tensor(tmp_path):
    rng = random.Random(7)
    tensor = torch.arange(64, dtype=torch.float32)
    whole, path = saved(tensor), tmp_path / "x"
    for _ in range(1500):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with path.open("rb") as file:
            try:
                found = zips.find_tensor(file.fileno(), 0, len(data))
            except SourceError:
                continue
            stored = os.pread(file.fileno(), found.nbytes, found.data_offset)
        assert found[:2] == ("float32", (64,))
        assert stored == raw(tensor) or zlib.crc32(stored) != found.crc


def test_naming_puts_the_file_first(opened):
    with pytest.raises(CorruptError, match=r"^__0_0\.distcp is not a torch\.save file"), naming("__0_0.distcp"):
        zips.find_tensor(*opened(b""))
