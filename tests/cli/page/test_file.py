"""FILE of `--report`: refused before the work begins, and then written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from read_page import ReadPage
from tiny import tiny_config, write_tiny_hf
from typer.testing import CliRunner, Result

from vlconv import converters
from vlconv.app import app
from vlconv.page import as_html

EARLIER = as_html(converters.Report("verify", "same", result="an earlier run"))


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, [*map(str, args)], prog_name="vlconv", env={"COLUMNS": "120", "TERM": "dumb"})


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and it with one projection half as large again. No test changes them."""
    folder = tmp_path_factory.mktemp("sides")
    hf = write_tiny_hf(folder / "base", tiny_config("qwen3"))
    tuned = {n: t * 1.5 if "layers.2.mlp.down" in n else t for n, t in hf.items()}
    write_tiny_hf(folder / "tuned", tiny_config("qwen3"), tensors=tuned)
    return folder / "base", folder / "tuned"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[], object]], None]:
    """Puts a function in the place of verify's work; its report is of one difference."""
    monkeypatch.chdir(tmp_path)

    def put(during: Callable[[], object]) -> None:
        def verify(*args: Any) -> converters.Report:
            during()
            found = [converters.Difference("layers.2", "values", 3)]
            return converters.Report("verify", "different", result="different: 1 of 2 tensors", differences=found)

        monkeypatch.setattr(converters, "verify", verify)

    put(lambda: pytest.fail("it began to work"))
    return put


def there(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


class TestWritten:
    def test_of_two_sides_that_differ(self, sides: tuple[Path, Path], tmp_path: Path) -> None:
        ran = invoke("verify", *sides, "--report", tmp_path / "page.html", "--json")
        assert ran.exit_code == 1
        document = json.loads(ran.stdout)
        assert document["report"] == str(tmp_path / "page.html")
        page = ReadPage((tmp_path / "page.html").read_text())
        ((_, row),) = page.tables["differences"]
        (known,) = document["differences"]
        assert [row[n].number for n in (2, 3, 4)] == [known["count"], known["max_abs"], known["relative"]]
        assert [*map(str, sides)] == page.said("code")[:2]
        assert [*there(tmp_path)] == ["page.html"]

    @pytest.mark.parametrize("form", ["", "--like", "--on-disk"])
    def test_of_one_side(self, sides: tuple[Path, Path], tmp_path: Path, form: str) -> None:
        more = {"--like": [sides[0]], "--on-disk": [tmp_path]}.get(form, [])
        ran = invoke("verify", sides[1], *([form] if form else []), *more, "--report", tmp_path / "page.html", "--json")
        assert ran.exit_code == 0, ran.output
        page = ReadPage((tmp_path / "page.html").read_text())
        assert "No difference was found." in page.said("p") and page.values["header", "class"] == {"same"}
        assert [*there(tmp_path)] == ["page.html"]

    def test_the_screen_says_where(self, work: Callable[[Any], None], tmp_path: Path) -> None:
        work(lambda: None)
        assert "report  page.html" in invoke("verify", "a", "b", "--report", "page.html").stdout
        assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o666 & ~umask()

    def test_an_earlier_page_is_replaced(self, work: Callable[[Any], None], tmp_path: Path) -> None:
        (tmp_path / "page.html").write_text(EARLIER)
        work(lambda: None)
        assert invoke("verify", "a", "--report", "page.html").exit_code == 1
        assert ReadPage((tmp_path / "page.html").read_text()).said("h1") == ["different: 1 of 2 tensors"]
        assert [*there(tmp_path)] == ["page.html"]

    def test_not_by_a_dry_run(self, sides: tuple[Path, Path], tmp_path: Path) -> None:
        assert invoke("verify", *sides, "--report", tmp_path / "page.html", "--dry-run").exit_code == 0
        assert there(tmp_path) == {}

    def test_not_where_nothing_can_be_compared(self, sides: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "page.html").write_text(EARLIER)
        assert invoke("verify", sides[0], tmp_path, "--report", tmp_path / "page.html").exit_code != 0
        (tmp_path / "empty").mkdir()
        assert invoke("verify", sides[0], tmp_path / "empty", "--report", tmp_path / "page.html").exit_code == 3
        assert there(tmp_path) == {"page.html": EARLIER}


def test_it_is_not_loaded_at_every_start() -> None:
    seen = "import sys, vlconv.app; sys.exit(any(name.startswith('vlconv.page') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", seen], check=False).returncode == 0


REFUSED = [
    ("mine.html", "no page of vlconv"),
    ("folder.html", "no page of vlconv"),
    ("link.html", "no page of vlconv"),
    ("dangling.html", "no page of vlconv"),
    ("pipe.html", "no page of vlconv"),
    ("nowhere/page.html", "its directory is not there"),
    ("mine.html/page.html", "its directory is not there"),
    ("page.txt", "no name of a page"),
    ("-", "no name of a page"),
    ("a/page.html", "which is read"),
    ("a/deeper/page.html", "which is read"),
    ("b/page.html", "which is read"),
    ("to_a/page.html", "which is read"),
    ("like/page.html", "which is read"),
    ("reference/page.html", "which is read"),
]


class TestRefused:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        for name in ("a/deeper", "b", "like", "reference", "folder.html"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "page.html").write_text(EARLIER)
        (tmp_path / "mine.html").write_text("<!doctype html>\n<title>mine</title>" + EARLIER)
        (tmp_path / "link.html").symlink_to("page.html")
        (tmp_path / "dangling.html").symlink_to("nothing.html")
        (tmp_path / "to_a").symlink_to("a")
        os.mkfifo(tmp_path / "pipe.html")

    @pytest.mark.parametrize(("name", "says"), REFUSED)
    def test_before_the_work(self, work: object, tmp_path: Path, name: str, says: str) -> None:
        before = there(tmp_path)
        ran = invoke("verify", "a", "b:100", "--like", "like", "--reference", "reference", "--report", name)
        assert ran.exit_code == 1 and says in ran.stderr and f"--report {name}" in ran.stderr
        assert there(tmp_path) == before

    def test_what_comes_to_lie_there_meanwhile_is_kept(self, work: Callable[[Any], None], tmp_path: Path) -> None:
        new = tmp_path / "new.html"
        work(lambda: new.write_text("somebody's"))
        ran = invoke("verify", "a", "b", "--report", "new.html")
        assert ran.exit_code == 1 and "no page of vlconv" in ran.stderr
        assert new.read_text() == "somebody's"


class TestWhole:
    @pytest.fixture
    def spoil(self, work: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        """Makes the last step but one, in which the page is brought to disk, raise; an earlier page is there."""
        (tmp_path / "page.html").write_text(EARLIER)
        work(lambda: None)

        def put(fault: BaseException) -> None:
            def fsync(number: int) -> None:
                raise fault

            monkeypatch.setattr(os, "fsync", fsync)

        return put

    def test_a_full_disk_leaves_the_earlier_page_and_all_that_was_found_is_told(
        self, spoil: Any, tmp_path: Path
    ) -> None:
        spoil(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        ran = invoke("verify", "a", "b", "--report", "page.html")
        assert ran.exit_code == 1
        assert "page.html: No space left on device" in ran.stderr and "somewhere else" in ran.stderr
        assert ran.stdout.startswith("different: 1 of 2 tensors") and "layers.2" in ran.stdout
        assert there(tmp_path) == {"page.html": EARLIER}

    def test_as_one_document(self, spoil: Any) -> None:
        spoil(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        ran = invoke("verify", "a", "b", "--report", "page.html", "--json")
        document = json.loads(ran.stdout)
        assert ran.exit_code == 1 and document["status"] == "different"
        assert [d["tensor"] for d in document["differences"]] == ["layers.2"]
        assert document["error"]["type"] == "TargetError" and "report" not in document

    def test_an_interrupt_leaves_the_earlier_page(self, spoil: Any, tmp_path: Path) -> None:
        spoil(KeyboardInterrupt())
        assert invoke("verify", "a", "b", "--report", "page.html").exit_code == 130
        assert there(tmp_path) == {"page.html": EARLIER}


def umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found
