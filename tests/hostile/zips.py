"""Zips that are not what torch.save writes, in each place of a checkpoint that is one."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable

from .case import Kind, Work, equal, refused
from .files import MODEL, PROJECTION, Members, replace_item, zip_members, zipped

ZIPS = Kind("zips", every=3)
Trick = Callable[[bytes], bytes]

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def rebuilt(change: Callable[[Members], Members], compression: int = zipfile.ZIP_STORED) -> Trick:
    """Other members, well-formed."""
    return lambda data: zipped(change(zip_members(data)), compression)


def plain(data: bytes) -> bytes:
    """The same members as Python writes them: no padding, no zip64 records."""
    return zipped(zip_members(data))


def poked(record: bytes, at: int, form: str, *values: int, last: bool = True) -> Trick:
    """A field of the last (or first) record of a kind, overwritten."""

    def trick(data: bytes) -> bytes:
        out = bytearray(plain(data))
        start = out.rindex(record) if last else out.index(record)
        struct.pack_into(form, out, start + at, *values)
        return bytes(out)

    return trick


def _duplicate(members: Members) -> Members:
    name, data = next(((n, d) for n, d in members if "/data/" in n and d), members[0])
    return [*members, (name, bytes(len(data)))]


def _storage(members: Members) -> tuple[str, bytes]:
    return next((n, d) for n, d in members if "/data/" in n and d)


def _with_storage(change: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    def changed(members: Members) -> Members:
        name, _ = _storage(members)
        return [(n, change(d) if n == name else d) for n, d in members]

    return changed


def _overlap(data: bytes) -> bytes:
    """The last member is said to begin inside the one before, where a local header of its name was planted."""
    members = zip_members(data)
    name, content = _storage(members)
    small = zipped([("archive/small", b"xy")])
    planted = small[: small.index(CENTRAL)]
    inner = planted + content[len(planted) :]
    folder = name.split("/")[0]
    planted = planted.replace(b"archive", folder.encode()[:7].ljust(7, b"_"))
    whole = bytearray(zipped([(n, inner if n == name else d) for n, d in members] + [("archive/small", b"xy")]))
    struct.pack_into("<I", whole, whole.rindex(CENTRAL) + 42, whole.index(b"archive/small") - 30)
    return bytes(whole)


def _zip64_behind(data: bytes) -> bytes:
    """End records of both sizes that contradict each other."""
    out = plain(data)
    end = out.rindex(END)
    entries, size, start = struct.unpack_from("<H2I", out, end + 10)
    big = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries + 1, entries + 1, size, start)
    return out[:end] + big + struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1) + out[end:]


def _signed_big(data: bytes) -> bytes:
    """A zip64 field that holds 2^63."""
    out = bytearray(plain(data))
    at = out.rindex(CENTRAL)
    n_name = struct.unpack_from("<H", out, at + 28)[0]
    struct.pack_into("<I", out, at + 42, 0xFFFFFFFF)
    struct.pack_into("<H", out, at + 30, 12)
    out[at + 46 + n_name : at + 46 + n_name] = struct.pack("<2HQ", 1, 8, 1 << 63)
    end = out.rindex(END)
    struct.pack_into("<I", out, end + 12, struct.unpack_from("<I", out, end + 12)[0] + 12)
    return bytes(out)


def _laughs(data: bytes) -> bytes:
    """A directory of a hundred thousand entries that all mean the same member."""
    out = plain(data)
    end, first = out.rindex(END), out.index(CENTRAL)
    lengths = struct.unpack_from("<3H", out, first + 28)
    record = out[first : first + 46 + sum(lengths)]
    count = 100_000
    many = record * count
    small = struct.pack("<4s4H2IH", END, 0, 0, 0xFFFF, 0xFFFF, len(many), first, 0)
    big = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(many), first)
    assert end > first
    return out[:first] + many + big + struct.pack("<4sIQI", b"PK\x06\x07", 0, first + len(many), 1) + small


TRICKS: dict[str, Trick] = {
    "two members of one name": rebuilt(_duplicate),
    "overlapping members": _overlap,
    "compressed members": rebuilt(lambda m: [(n, d) for n, d in m], zipfile.ZIP_DEFLATED),
    "an encrypted member": poked(CENTRAL, 8, "<H", 1, last=False),
    "an unknown compression": poked(CENTRAL, 10, "<H", 99, last=False),
    "garbage before it": lambda data: b"garbage!" + plain(data),
    "garbage behind it": lambda data: plain(data) + b"garbage!",
    "a comment": lambda data: plain(data)[:-2] + b"\x04\x00what",
    "a local header of another name": lambda data: plain(data).replace(b"data.pkl", b"data.xxx", 1),
    "a local header of another sum": poked(LOCAL, 14, "<I", 0xDEAD),
    "a local header of another size": poked(LOCAL, 22, "<I", 77),
    "a local header that is compressed": poked(LOCAL, 8, "<H", 8),
    "a member outside of it": poked(CENTRAL, 42, "<I", 0x7FFFFFF0),
    "a member in the place of another": poked(CENTRAL, 42, "<I", 0),
    "a member longer than all": poked(CENTRAL, 20, "<2I", 0x7FFFFFF0, 0x7FFFFFF0),
    "zip64 without its field": poked(CENTRAL, 42, "<I", 0xFFFFFFFF),
    "a zip64 offset of 2^63": _signed_big,
    "two end records that contradict each other": _zip64_behind,
    "one entry too few": poked(END, 8, "<2H", 1, 1),
    "one entry too many": poked(END, 8, "<2H", 99, 99),
    "a directory elsewhere": poked(END, 16, "<I", 7),
    "a directory of another size": poked(END, 12, "<I", 7),
    "another disk": poked(END, 4, "<2H", 1, 1),
    "a name that is no text": lambda data: plain(data).replace(b"version", b"ver\xff\xfeon"),
    "a name that leaves the folder": rebuilt(lambda m: [*m, ("../../../etc/cron.d/x", b"x")]),
    "two folders": rebuilt(lambda m: [*m, ("other/x", b"x")]),
    "no data.pkl": rebuilt(lambda m: [(n, d) for n, d in m if not n.endswith("data.pkl")]),
    "an empty data.pkl": rebuilt(lambda m: [(n, b"" if n.endswith("data.pkl") else d) for n, d in m]),
    "another byte order": rebuilt(lambda m: [(n, b"big" if n.endswith("byteorder") else d) for n, d in m]),
    "no members": lambda data: zipped([]),
    "nothing at all": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "half of it": lambda data: data[: len(data) // 2],
    "a hundred thousand entries": _laughs,
}
STORAGE_TRICKS: dict[str, Trick] = {
    "no storage": rebuilt(lambda m: [(n, d) for n, d in m if (n, d) != _storage(m)]),
    "a storage too short": rebuilt(_with_storage(lambda d: d[:-2])),
    "a storage too long": rebuilt(_with_storage(lambda d: d + b"xx")),
    "an empty storage": rebuilt(_with_storage(lambda d: b"")),
}
FAST = {"two members of one name", "a comment", "a local header of another sum", "a storage too short", "half of it"}


def _common(trick: Trick) -> Callable[[Work], None]:
    def damage(work: Work) -> None:
        path = work.data / "common.pt"
        path.write_bytes(trick(path.read_bytes()))

    return damage


def _rank(trick: Trick) -> Callable[[Work], None]:
    def damage(work: Work) -> None:
        path = work.data / "mp_rank_00_001" / MODEL
        path.write_bytes(trick(path.read_bytes()))

    return damage


def _item(key: str, trick: Trick) -> Callable[[Work], None]:
    return lambda work: replace_item(work.data, key, trick)


def _everywhere() -> None:
    for title, trick in (TRICKS | STORAGE_TRICKS).items():
        slow = title not in FAST
        ZIPS.add(f"{title}, a tensor's item", "dist", _item(PROJECTION, trick), refused(PROJECTION))
        ZIPS.add(f"{title}, a tensor's item", "fsdp", _item(_FSDP, trick), refused("linear_proj.weight"), slow=slow)
        ZIPS.add(f"{title}, a rank's file", "legacy", _rank(trick), refused("mp_rank_00_001"), slow=slow)
        if title in TRICKS and title != "overlapping members":  # which needs a storage
            ZIPS.add(f"{title}, common.pt", "dist", _common(trick), refused("common.pt"), slow=slow)


_FSDP = "model.module.language_model.decoder.layers.1.self_attention.linear_proj.weight"
_everywhere()


@ZIPS.case("dist", equal())
def members_that_nobody_knows(work: Work) -> None:
    replace_item(work.data, PROJECTION, rebuilt(lambda m: [*m, (m[0][0].split("/")[0] + "/more", b"x" * 100)]))


@ZIPS.case(("dist", "object"), equal())
def garbage_in_an_extra_state(work: Work) -> None:
    from .pickles import extra_state

    extra_state(b"N", work)
