"""Data files that are missing, short, empty, exchanged, damaged, or no files."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .case import Kind, Work, either, equal, refused, warned
from .files import MODEL, PROJECTION, flip, places

DATA_FILES = Kind("data files", "dist", "legacy", "sharded", every=3)
_FILES = {
    "dist": "__0_1.distcp",
    "fsdp": "__1_0.distcp",
    "plain": "__1_0.distcp",
    "moe": "__0_1.distcp",
    "legacy": f"mp_rank_01_000/{MODEL}",
    "hf": "model.safetensors",
    "sharded": "model-00002-of-00003.safetensors",
}
_NEEDED = {"dist": ".metadata", "fsdp": ".metadata", "legacy": f"mp_rank_00_000/{MODEL}", "hf": "config.json"}


def _to_each(title: str, change: Callable[[Path], object], *says: str, files: dict[str, str] | None = None) -> None:
    for base, name in (files or _FILES).items():
        named = says or (name if base != "legacy" else name.split("/")[0],)
        DATA_FILES.add(title, base, partial(_at, change, name), refused(*named))


def _at(change: Callable[[Path], object], name: str, work: Work) -> None:
    change(work.data / name)


def _replaced(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's path is short
    os.close(folder)


def _hole(path: Path) -> None:
    """A file of the same size whose middle was never written."""
    data = path.read_bytes()
    third = len(data) // 3
    with path.open("wb") as file:
        file.write(data[:third])
        file.seek(2 * third)
        file.write(data[2 * third :])


def _swapped_halves(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 2 :] + data[: len(data) // 2])


def _cut(keep: float, path: Path) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


_to_each("gone", Path.unlink)
_to_each("empty", partial(_cut, 0))
_to_each("of half its size", partial(_cut, 0.5))
_to_each(
    "of all but some bytes",
    partial(_cut, 0.999),
    files={k: v for k, v in _FILES.items() if k not in ("dist", "moe", "fsdp")},
)
_to_each("of zeros", lambda path: path.write_bytes(bytes(path.stat().st_size)))
_to_each("its halves exchanged", _swapped_halves)
_to_each("a folder", partial(_replaced, Path.mkdir))
_to_each("a fifo", partial(_replaced, os.mkfifo))
_to_each("a socket", partial(_replaced, _socket))
_to_each("a broken link", partial(_replaced, lambda path: path.symlink_to("nowhere")))
_to_each("a link to itself", partial(_replaced, lambda path: path.symlink_to(path.name)))
_to_each("a link to a device", partial(_replaced, lambda path: path.symlink_to("/dev/zero")))
_to_each("a link to a terminal", partial(_replaced, lambda path: path.symlink_to("/dev/tty")))
_to_each("a link to what the system makes up", partial(_replaced, lambda path: path.symlink_to("/proc/self/environ")))
_to_each("gone, needed first", Path.unlink, files=_NEEDED)
_to_each("empty, needed first", partial(_cut, 0), files=_NEEDED)
_to_each("of half its size, needed first", partial(_cut, 0.5), files=_NEEDED)
_to_each("a fifo, needed first", partial(_replaced, os.mkfifo), files=_NEEDED)
_to_each("a socket, needed first", partial(_replaced, _socket), files=_NEEDED)
_to_each("a link to a device, needed first", partial(_replaced, lambda p: p.symlink_to("/dev/zero")), files=_NEEDED)


@DATA_FILES.case(tuple(b for b in _FILES if b not in ("hf", "sharded")), refused(("CRC", ".distcp", MODEL)))
def a_hole(work: Work) -> None:
    _hole(work.data / _FILES[_base(work)])


@DATA_FILES.case(("hf", "sharded"), warned("never written", differs=True))
def a_hole_in_what_keeps_no_sums(work: Work) -> None:
    _hole(work.data / _FILES[_base(work)])


@DATA_FILES.case(("hf", "sharded"), refused("never written"), "--strict")
def a_hole_in_what_keeps_no_sums_strict(work: Work) -> None:
    _hole(work.data / _FILES[_base(work)])


def _base(work: Work) -> str:
    """Which base a copy is of, by its files."""
    here = {str(p.relative_to(work.data)) for p in work.data.rglob("*")}
    return next(base for base in ("sharded", "hf", "legacy", "dist", "plain", "fsdp") if _FILES[base] in here)


@DATA_FILES.case("dist", refused(("__0_0.distcp", "__0_1.distcp")))
def two_files_exchanged(work: Work) -> None:
    first, second = work.data / "__0_0.distcp", work.data / "__0_1.distcp"
    first.rename(work.data / "x")
    second.rename(first)
    (work.data / "x").rename(second)


@DATA_FILES.case("plain", refused("__1_0.distcp"))
def one_file_copied_over_another(work: Work) -> None:
    shutil.copyfile(work.data / "__0_0.distcp", work.data / "__1_0.distcp")


@DATA_FILES.case("dist", refused(".distcp", "CRC"))
def a_flipped_bit(work: Work) -> None:
    place = places(work.data, PROJECTION)[0]
    flip(work.data / place.relative_path, place.offset + place.length // 2)


@DATA_FILES.case("dist", equal())
def garbage_behind_a_file(work: Work) -> None:
    with (work.data / "__0_0.distcp").open("ab") as file:
        file.write(b"garbage" * 1000)


@DATA_FILES.case("dist", equal())
def files_that_nobody_names(work: Work) -> None:
    shutil.copyfile(work.data / "__0_0.distcp", work.data / "__7_7.distcp")
    (work.data / "nonsense.bin").write_bytes(b"\x80\x04cos\nsystem\n.")


@DATA_FILES.case("dist", equal())
def a_linked_file(work: Work) -> None:
    """As hub caches have them."""
    real = work.folder / "elsewhere"
    (work.data / "__0_0.distcp").rename(real)
    (work.data / "__0_0.distcp").symlink_to(real)


@DATA_FILES.case("dist", equal())
def the_source_is_a_link(work: Work) -> None:
    work.read = work.folder / "link"
    work.read.symlink_to(work.source)


@DATA_FILES.case("dist", either("__0_0.distcp"))
def a_file_that_is_two_names_of_one(work: Work) -> None:
    os.link(work.data / "__0_0.distcp", work.data / "__0_9.distcp")
