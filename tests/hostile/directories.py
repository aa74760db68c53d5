"""Which directory is the checkpoint: trackers, iterations, outputs that were never finished, links."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .case import Kind, Work, either, equal, refused

DIRECTORIES = Kind("directories", every=2)
TRACKER, MARKER = "latest_checkpointed_iteration.txt", ".vlconv-partial"

for _title, _word in {
    "empty": b"",
    "of letters": b"ninety",
    "of a negative number": b"-10",
    "of a number with a point": b"10.0",
    "of a thousand digits": b"1" * 1000,
    "of a path": b"../../canary",
    "of a null": b"10\0",
    "of other digits": "١٠".encode(),
    "of escape sequences": b"\x1b[2J\nerror: x",
    "of no UTF-8": b"\xff\xfe",
    "of what was pruned": b"90",
    "of a release that is not there": b"release",
}.items():
    DIRECTORIES.add(
        f"a tracker {_title}",
        "dist",
        lambda work, word=_word: (work.source / TRACKER).write_bytes(word),
        refused((TRACKER, "iter_0000090")),
    )


@DIRECTORIES.case("dist", refused("iter_0000010", "iter_0000005", "--iteration"))
def several_iterations_and_no_tracker(work: Work) -> None:
    (work.source / TRACKER).unlink()
    shutil.copytree(work.data, work.source / "iter_0000005")


@DIRECTORIES.case("dist", refused("iteration 11"), "--iteration", "11")
def an_iteration_that_is_not_there(work: Work) -> None:
    pass


@DIRECTORIES.case("dist", either(TRACKER))
def a_tracker_that_is_a_fifo(work: Work) -> None:
    (work.source / TRACKER).unlink()
    os.mkfifo(work.source / TRACKER)


@DIRECTORIES.case("dist", either(TRACKER))
def a_tracker_that_is_a_device(work: Work) -> None:
    (work.source / TRACKER).unlink()
    (work.source / TRACKER).symlink_to("/dev/zero")


@DIRECTORIES.case("dist", refused("source"))
def an_empty_directory(work: Work) -> None:
    shutil.rmtree(work.source)
    work.source.mkdir()


@DIRECTORIES.case("dist", refused("source"))
def a_file(work: Work) -> None:
    shutil.rmtree(work.source)
    work.source.write_text("x")


@DIRECTORIES.case(("dist", "hf"), refused("source"))
def nothing(work: Work) -> None:
    shutil.rmtree(work.source)


@DIRECTORIES.case(("dist", "hf"), refused("source"))
def a_fifo(work: Work) -> None:
    shutil.rmtree(work.source)
    os.mkfifo(work.source)


@DIRECTORIES.case(("dist", "hf"), refused("source"))
def a_link_to_itself(work: Work) -> None:
    shutil.rmtree(work.source)
    work.source.symlink_to("source")


@DIRECTORIES.case("hf", refused("source"), command="mcore2hf")
def a_hugging_face_directory_for_mcore2hf(work: Work) -> None:
    pass


@DIRECTORIES.case(("dist", "legacy"), refused("a Megatron checkpoint, no Hugging Face model"), command="hf2mcore")
def a_megatron_checkpoint_for_hf2mcore(work: Work) -> None:
    pass


@DIRECTORIES.case("dist", equal())
def iterations_that_are_links_to_one(work: Work) -> None:
    (work.source / "iter_0000011").symlink_to("iter_0000010")


@DIRECTORIES.case("dist", equal())
def a_loop_of_links(work: Work) -> None:
    (work.source / "release").symlink_to(".")


@DIRECTORIES.case("dist", either("mp_rank"))
def two_formats_in_one_directory(work: Work) -> None:
    (work.data / "mp_rank_00").mkdir()
    (work.data / "mp_rank_00" / "model_optim_rng.pt").write_bytes(b"x")


# an output that was never finished


@DIRECTORIES.case(("dist", "hf", "legacy", "plain"), refused("unfinished output"))
def a_source_that_was_never_finished(work: Work) -> None:
    (work.data / MARKER).write_text("{}")


@DIRECTORIES.case(("dist", "legacy", "plain"), refused("unfinished output"))
def a_source_in_one_that_was_never_finished(work: Work) -> None:
    (work.source / MARKER).write_text("{}")


@DIRECTORIES.case("hf", refused("unfinished output"))
def a_source_in_one_that_was_never_finished_(work: Work) -> None:
    """As a killed run leaves it: the marker beside the new directory."""
    staging = work.folder / "out.partial"
    staging.mkdir()
    work.source.rename(staging / "out")
    (staging / MARKER).write_text("{}")
    work.source.mkdir()
    work.read = staging / "out"


@DIRECTORIES.case("dist", refused("reference", "unfinished output"), "--reference", "{work.folder}/reference")
def a_reference_that_was_never_finished(work: Work) -> None:
    shutil.copytree(work.source / "huggingface", work.folder / "reference")
    (work.folder / "reference" / MARKER).write_text("{}")


def _stranger(work: Work) -> None:
    """A staging directory of another user, its marker for all to write: not ours to finish, nor to remove."""
    staging = work.target / "out.partial"
    staging.mkdir()
    (staging / MARKER).write_text("")
    (staging / MARKER).chmod(0o666)
    for path in (staging / MARKER, staging):
        os.chown(path, 4711, 4711)
    work.standing = {staging.name}


# side files


def _link(name: str, to: str) -> Callable[[Work], None]:
    def damage(work: Work) -> None:
        path = work.reference / name
        path.unlink()
        path.symlink_to(to)

    return damage


for _base in ("dist", "hf"):
    for _name, _to in {
        "merges.txt": "/proc/self/environ",
        "vocab.json": "/etc/passwd",
        "tokenizer.json": "../../canary/alive",
        "chat_template.json": "/dev/zero",
        "generation_config.json": "/dev/tty",
        "tokenizer_config.json": "/etc/group",
    }.items():
        DIRECTORIES.add(
            f"{_name} is a link to {_to}",
            _base,
            _link(_name, _to.removeprefix("../") if _base == "hf" else _to),  # from a folder less deep
            refused(_name),
            slow=_base == "hf" and _name != "merges.txt",
        )
    DIRECTORIES.add(
        "config.json is a link to a password file", _base, _link("config.json", "/etc/passwd"), refused("config.json")
    )
    DIRECTORIES.add(
        "config.json is a link to zeros",
        _base,
        _link("config.json", "/dev/zero"),
        refused(("config.json", "reference")),
    )


def _unlinked(make: Callable[[Path], object], name: str, work: Work) -> None:
    (work.reference / name).unlink()
    make(work.reference / name)


for _title, _make in {"a fifo": os.mkfifo, "a folder": Path.mkdir}.items():
    for _base in ("dist", "hf"):
        _damage = partial(_unlinked, _make, "merges.txt")
        DIRECTORIES.add(f"merges.txt is {_title}", _base, _damage, either("merges.txt"))


_SNAPSHOT = "models--x--y/snapshots/0123456789abcdef"


@DIRECTORIES.case("dist", equal(), "--reference", "{work.folder}/" + _SNAPSHOT)
def side_files_as_a_hub_cache_has_them(work: Work) -> None:
    _as_in_a_hub_cache(work)


@DIRECTORIES.case("hf", equal())
def a_source_as_a_hub_cache_has_it(work: Work) -> None:
    _as_in_a_hub_cache(work)


@DIRECTORIES.case("dist", refused("huggingface", "nobody named"))
def a_reference_that_is_a_link_and_nobody_named(work: Work) -> None:
    _as_in_a_hub_cache(work)


def _as_in_a_hub_cache(work: Work) -> None:
    """snapshots/REV/name -> ../../blobs/SUM."""
    hub = work.folder / "models--x--y"
    (hub / "blobs").mkdir(parents=True)
    snapshot = work.folder / _SNAPSHOT
    snapshot.parent.mkdir()
    reference = work.reference
    shutil.move(reference, snapshot)
    for number, path in enumerate(sorted(p for p in snapshot.iterdir() if p.is_file())):
        path.rename(hub / "blobs" / f"{number:040x}")
        path.symlink_to(f"../../blobs/{number:040x}")
    reference.symlink_to(snapshot)


@DIRECTORIES.case(("dist", "hf"), either("added_tokens.json"))
def a_side_file_that_is_sparse_and_a_terabyte_long(work: Work) -> None:
    with (work.reference / "added_tokens.json").open("wb") as file:
        file.truncate(1 << 40)


if os.geteuid() == 0:
    DIRECTORIES.add("a partial output of another user", "dist", _stranger, refused("out.partial"))
