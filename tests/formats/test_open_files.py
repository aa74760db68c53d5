"""Files held open: few of them, none closed under a reading thread; and what the system refuses is no damage."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vlconv.converters.errors import CorruptError, ReadError, SourceError
from vlconv.converters.formats import is_mcore, open_files, open_mcore
from vlconv.converters.formats.chunks import ChunkReader, Extent, dense
from vlconv.converters.formats.json_file import read_json
from vlconv.converters.formats.open_files import OpenFiles, opened
from vlconv.converters.formats.pickles.sandbox import ask
from vlconv.converters.formats.safetensors import read_header
from vlconv.converters.formats.zips.torch_save import read_torch_save
from vlconv.converters.tensors.spec import Box, TensorSpec

NOT_READABLE = Path("/proc/self/mem")
"""A regular file whose first byte gives a real EIO."""


def made(directory: Path, count: int) -> list[str]:
    """Files that hold their own number."""
    paths = [directory / f"f{number}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(number.to_bytes(4, "little"))
    return [str(path) for path in paths]


def held_by_us(directory: Path) -> list[str]:
    """Which files below a folder this process has open, as the kernel says."""
    links = list(Path("/proc/self/fd").iterdir())
    targets = [str(link.readlink()) for link in links if link.is_symlink()]
    return sorted(Path(t).name for t in targets if t.startswith(f"{directory}/"))


class TestOpenFiles:
    def test_those_used_last_stay_open(self, tmp_path: Path) -> None:
        paths, files = made(tmp_path, 5), OpenFiles(3)
        for number in (0, 1, 2, 0, 3, 4):
            with files.held(paths[number]) as fd:
                assert os.pread(fd, 4, 0) == number.to_bytes(4, "little")
        assert held_by_us(tmp_path) == ["f0", "f3", "f4"]
        del files
        assert held_by_us(tmp_path) == []

    def test_one_is_opened_once(self, tmp_path: Path) -> None:
        (path,), files = made(tmp_path, 1), OpenFiles(2)
        with files.held(path) as first, files.held(path) as second:
            assert first == second
        assert held_by_us(tmp_path) == ["f0"]

    def test_one_in_use_is_not_closed(self, tmp_path: Path) -> None:
        paths, files = made(tmp_path, 4), OpenFiles(1)
        with files.held(paths[0]) as first, files.held(paths[1]):
            for other in paths[2:]:
                with files.held(other):
                    pass
            assert os.pread(first, 4, 0) == bytes(4)
            assert held_by_us(tmp_path)[:2] == ["f0", "f1"]
        with files.held(paths[2]):
            assert held_by_us(tmp_path) == ["f2"]

    def test_many_threads_read_what_they_asked_for(self, tmp_path: Path) -> None:
        paths, files = made(tmp_path, 40), OpenFiles(3)

        def read(seed: int) -> int:
            wrong, random_ = 0, random.Random(seed)
            for _ in range(1500):
                number = random_.randrange(len(paths))
                with files.held(paths[number]) as fd:
                    wrong += os.pread(fd, 4, 0) != number.to_bytes(4, "little")
            return wrong

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(read, range(8))) == 0
        finally:
            sys.setswitchinterval(before)
        with files.held(paths[0]):
            assert len(held_by_us(tmp_path)) <= 3

    def test_it_is_given_back_when_reading_fails(self, tmp_path: Path) -> None:
        paths, files = made(tmp_path, 2), OpenFiles(1)
        with pytest.raises(KeyError), files.held(paths[0]):
            raise KeyError
        with files.held(paths[1]):
            assert held_by_us(tmp_path) == ["f1"]


def child(limits: tuple[int, int], code: str, *arguments: str) -> str:
    """What Python prints in a process of such a limit (soft, hard) on open files."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestTheLimit:
    HOLD = """
        import os, resource, sys
        from pathlib import Path
        from vlconv.converters.formats.open_files import OpenFiles
        files = OpenFiles()
        for path in sorted(Path(sys.argv[1]).iterdir()):
            with files.held(str(path)):
                pass
        ours = [fd for fd in Path("/proc/self/fd").iterdir() if os.path.exists(fd) and sys.argv[1] in os.readlink(fd)]
        print(resource.getrlimit(resource.RLIMIT_NOFILE), len(ours))
    """

    def test_the_soft_limit_is_raised(self, tmp_path: Path) -> None:
        made(tmp_path, 400)
        assert child((128, 1000), self.HOLD, str(tmp_path)) == "(1000, 1000) 250"

    def test_a_quarter_of_a_hard_one_is_used(self, tmp_path: Path) -> None:
        made(tmp_path, 400)
        assert child((256, 256), self.HOLD, str(tmp_path)) == "(256, 256) 64"

    def test_a_high_one_is_left_alone(self, tmp_path: Path) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        made(tmp_path, 10)
        assert child((5000, hard), self.HOLD, str(tmp_path)) == f"(5000, {hard}) 10"

    def test_idle_files_make_room(self, tmp_path: Path) -> None:
        """What else the process opens may leave less than was thought."""
        made(tmp_path, 60)
        code = """
            import os, sys
            from pathlib import Path
            from vlconv.converters.formats.open_files import OpenFiles
            others = [os.open("/dev/null", os.O_RDONLY) for _ in range(30)]
            files, read = OpenFiles(60), []
            for path in sorted(Path(sys.argv[1]).iterdir()):
                with files.held(str(path)) as fd:
                    read.append(os.pread(fd, 4, 0))
            print(len(set(read)))
        """
        assert child((64, 64), code, str(tmp_path)) == "60"

    def test_no_room_at_all(self, tmp_path: Path) -> None:
        paths = made(tmp_path, 1)
        code = """
            import os, sys
            from vlconv.converters.errors import CorruptError, ReadError
            from vlconv.converters.formats.open_files import OpenFiles
            files = OpenFiles()
            try:
                while True:
                    os.open("/dev/null", os.O_RDONLY)
            except OSError:
                pass
            try:
                with files.held(sys.argv[1]):
                    pass
            except ReadError as fault:
                print(fault)
        """
        said = child((64, 64), code, paths[0]).splitlines()
        assert said == [f"{paths[0]} cannot be read: Too many open files", open_files.HINTS[errno.EMFILE]]


def reader(path: Path) -> ChunkReader:
    """Of one tensor that is all of a file."""
    spec = TensorSpec("t", (4,), "uint8")
    return ChunkReader({"t": spec}, {"t": [dense(spec, 0)]}, lambda _: Extent(str(path), 0, 4))


def read_tensor(path: Path) -> None:
    reader(path).read_into(Box("t", (0,), (4,)), np.empty(4, np.uint8))


Read = Callable[[Path], object]

WAYS: dict[str, Read] = {
    "a tensor": read_tensor,
    "json": read_json,
    "a safetensors header": read_header,
    "torch.save": read_torch_save,
}
"""Every way in which a file is read."""


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)
class TestWhatTheSystemRefuses:
    @pytest.mark.parametrize(
        ("code", "hint"),
        [
            (errno.EMFILE, "ulimit -n"),
            (errno.ENFILE, "too many files open"),
            (errno.EACCES, "permissions"),
            (errno.EPERM, "permissions"),
            (errno.EIO, "dmesg"),
            (errno.ESTALE, "try again"),
            (errno.EREMOTEIO, "try again"),
        ],
    )
    def test_to_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read, code: int, hint: str) -> None:
        (path := tmp_path / "f").write_bytes(b"{}  ")

        def refuse(name: object, *_: object, **__: object) -> int:
            raise OSError(code, os.strerror(code), str(name))

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(SourceError) as caught:
            read(path)
        assert type(caught.value) is ReadError
        assert caught.value.what == f"{path} cannot be read: {os.strerror(code)}"
        assert hint in caught.value.hint

    def test_a_file_that_is_missing(self, tmp_path: Path, read: Read) -> None:
        """When a checkpoint is opened that is a fault of the checkpoint; when its tensors are read, it has vanished."""
        with pytest.raises(ReadError if read is read_tensor else CorruptError, match=r"/gone (is missing|cannot be)"):
            read(tmp_path / "gone")


class TestADiskThatFails:
    @pytest.mark.parametrize("read", [read_tensor, read_json, read_header])
    def test_for_real(self, read: Read) -> None:
        with pytest.raises(ReadError) as caught:
            read(NOT_READABLE)
        assert caught.value.what == f"{NOT_READABLE} cannot be read: Input/output error"
        assert "dmesg" in caught.value.hint

    def test_in_a_zip(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.save({"a": torch.ones(3)}, path := tmp_path / "f")

        def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(ReadError, match="/f cannot be read: Input/output error"):
            read_torch_save(path)


class TestTheChildProcess:
    def test_a_real_fault_of_the_disk(self) -> None:
        with pytest.raises(ReadError) as caught, opened(NOT_READABLE) as file:
            ask("tree", file, 0, 100, None)
        assert caught.value.what == f"{NOT_READABLE} cannot be read: Input/output error"

    def test_one_that_cannot_be_started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (path := tmp_path / "f").write_bytes(b"N.")

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        monkeypatch.setattr(subprocess, "Popen", refuse)
        with opened(path) as file, pytest.raises(ReadError, match="cannot be started: Resource temporarily"):
            ask("tree", file, 0, 2, None)


class TestFolders:
    @pytest.fixture
    def refusing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No file is seen through a folder called `closed`, and it is not listed: as without rights to it."""

        def refusing(call: Callable[..., object]) -> Callable[..., object]:
            def refused(path: object, **how: object) -> object:
                if "/closed" in str(path):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                return call(path, **how)

            return refused

        monkeypatch.setattr(os, "stat", refusing(os.stat))
        monkeypatch.setattr(os, "listdir", refusing(os.listdir))

    @pytest.mark.usefixtures("refusing")
    def test_a_checkpoint_in_a_closed_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ReadError, match=r"closed.* cannot be read: Permission denied"):
            is_mcore(tmp_path / "closed")
        with pytest.raises(ReadError, match=r"closed.* cannot be read: Permission denied"):
            open_mcore(tmp_path / "closed")

    @pytest.mark.usefixtures("refusing")
    def test_beside_others(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir()
        with pytest.raises(ReadError, match=r"closed cannot be read: Permission denied"):
            open_mcore(tmp_path)


@pytest.mark.parametrize("name", ["x\ud800", "x\0y"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    """Out of an index or a pickle, of which both can be made."""
    for look in (open_files.status, open_files.is_file, read_json):
        with pytest.raises(CorruptError, match=r"x\\(ud800|x00y) is no name that a file can have"):
            look(tmp_path / name)
