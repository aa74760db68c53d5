"""Source files are held to what they were when they were opened first; reading them is no change."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vlconv.converters.errors import ChangedError, CorruptError
from vlconv.converters.formats import file_system
from vlconv.converters.formats.open_files import OpenFiles, opened
from vlconv.converters.formats.seen_files import SeenFiles


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def touched(path: Path) -> None:
    """The same content, at another time."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1000))


def exchanged(path: Path) -> None:
    """Another file of the same size and times."""
    found, other = path.stat(), path.with_name(path.name + ".new")
    other.write_bytes(bytes(found.st_size))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(path)


def made_a_fifo(path: Path) -> None:
    os.mkfifo(other := path.with_name("fifo"))
    other.rename(path)


Change = Callable[[Path], None]

CHANGES: dict[str, tuple[Change, str]] = {
    "appended": (appended, "it has 5 bytes, and had 4"),
    "touched": (touched, "it was written to"),
    "exchanged": (exchanged, "it was replaced by another file"),
    "a fifo": (made_a_fifo, "it was replaced by another file"),
    "removed": (Path.unlink, "it was removed"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (path := tmp_path / "data").write_bytes(b"1234")
    return path


@pytest.fixture
def seen(path: Path) -> SeenFiles:
    """That file was opened once."""
    seen = SeenFiles()
    with seen.noting(), opened(path):
        pass
    return seen


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
class TestAChange:
    def test_is_seen_at_the_end(self, path: Path, seen: SeenFiles, change: Change, says: str) -> None:
        seen.check()
        change(path)
        with pytest.raises(ChangedError) as caught:
            seen.check()
        assert caught.value.what == f"{path} changed while it was read: {says}"
        assert "trainer" in caught.value.hint

    def test_is_seen_when_all_went_well(self, path: Path, seen: SeenFiles, change: Change, says: str) -> None:
        with pytest.raises(ChangedError, match=says), seen.held():
            change(path)

    def test_explains_what_failed(self, path: Path, seen: SeenFiles, change: Change, says: str) -> None:
        with pytest.raises(ChangedError, match=says), seen.held():
            change(path)
            raise CorruptError("a checksum is wrong")

    def test_through_a_link(self, path: Path, change: Change, says: str) -> None:
        (link := path.with_name("link")).symlink_to(path)
        seen = SeenFiles()
        with seen.noting(), opened(link):
            pass
        change(path)
        with pytest.raises(ChangedError, match=f"link changed while it was read: {says}"):
            seen.check()


@pytest.mark.parametrize("change", [appended, touched, exchanged])
class TestAFileThatIsOpenedAgain:
    def test_whole(self, path: Path, seen: SeenFiles, change: Change) -> None:
        change(path)
        with seen.noting(), pytest.raises(ChangedError), opened(path):
            pass

    def test_among_more_than_are_held(self, path: Path, change: Change) -> None:
        """In a thread, which inherits nothing of who is to be told."""
        (other := path.with_name("other")).write_bytes(b"")
        seen = SeenFiles()
        with seen.noting():
            files = OpenFiles(1)

        def read(name: Path) -> bytes:
            with files.held(str(name)) as fd:
                return os.pread(fd, 4, 0)

        with ThreadPoolExecutor(1) as pool:
            assert [*pool.map(read, [path, other, path, other])] == [b"1234", b"", b"1234", b""]
            change(path)
            with pytest.raises(ChangedError, match="data changed while it was read"):
                pool.submit(read, path).result()


class TestNoChange:
    def test_reading_changes_nothing(self, path: Path, seen: SeenFiles) -> None:
        os.utime(path, ns=(1, path.stat().st_mtime_ns))  # the time of access, and that of the inode
        path.chmod(0o400)
        with seen.held(), seen.noting(), opened(path) as file:
            assert file.read() == b"1234"

    def test_what_fails_without_one_is_told_as_it_is(self, seen: SeenFiles) -> None:
        with pytest.raises(CorruptError, match="a checksum is wrong"), seen.held():
            raise CorruptError("a checksum is wrong")

    def test_other_files_are_nobodys(self, path: Path, seen: SeenFiles) -> None:
        (other := path.with_name("other")).write_bytes(b"")
        with opened(other):
            appended(other)
        seen.check()

    def test_two_at_once(self, path: Path, seen: SeenFiles) -> None:
        """A command inside another has its own; the outer one goes on."""
        inner, outer = SeenFiles(), SeenFiles()
        (other := path.with_name("other")).write_bytes(b"")
        with outer.noting():
            with inner.noting(), opened(other):
                pass
            with opened(path):
                pass
        assert (inner.names_in(path.parent), outer.names_in(path.parent)) == ({"other"}, {"data"})


def test_what_was_seen_is_told_as_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same order, whichever was opened first, and by absolute names."""
    (first := path.with_name("a")).write_bytes(b"12")
    monkeypatch.chdir(path.parent)
    seen = SeenFiles()
    with seen.noting():
        for name in ("data", "a", "data"):
            with opened(Path(name)):
                pass
    assert [tuple(entry) for entry in seen.entries()] == [
        (str(p), p.stat().st_dev, p.stat().st_ino, p.stat().st_size, p.stat().st_mtime_ns) for p in (first, path)
    ]
    assert seen.names_in(Path()) == {"a", "data"}


@pytest.mark.parametrize(("kind", "held"), [("fuse.gcsfuse", False), ("fuse", False), ("ext4", True), ("nfs4", True)])
def test_inodes_that_are_made_up(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, held: bool) -> None:
    """A file system of an object store gives a file another number when the kernel forgot it for a while."""
    dev = path.stat().st_dev
    (mounts := path.with_name("mounts")).write_text(
        "21 1 0:19 / /sys rw - sysfs sysfs rw\n"
        f"36 35 {os.major(dev)}:{os.minor(dev)} / /mnt\\040x rw,noatime master:1 shared:2 - {kind} bucket rw\n"
    )
    monkeypatch.setattr(file_system, "MOUNTS", mounts)
    seen = SeenFiles()
    with seen.noting(), opened(path):
        pass
    exchanged(path)
    if held:
        with pytest.raises(ChangedError):
            seen.check()
    else:
        seen.check()
        assert seen.entries()[0].ino == 0
        touched(path)
        with pytest.raises(ChangedError):
            seen.check()
