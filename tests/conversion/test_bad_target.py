"""Targets that cannot be: refused before the first byte, for both commands, with everything as it was."""

from __future__ import annotations

import shutil

import pytest
from refusing import refused
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.errors import TargetError

SAMPLED = 2

COMMANDS = {"mcore2hf": (mcore2hf, "mcore", Mcore2HfOptions), "hf2mcore": (hf2mcore, "hf", Hf2McoreOptions)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore")
    return work


@pytest.fixture
def work(tmp_path, models):
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(params=COMMANDS)
def no(request, work):
    command, source, options = COMMANDS[request.param]

    def run(target, says, hint, **given):
        refused(command, work / source, target, options(**given), fault=TargetError, says=says, hint=hint)

    run.source, run.command, run.options = work / source, command, options
    return run


def test_one_that_holds_something(no, work):
    (work / "out").mkdir()
    (work / "out" / "mine").write_text("precious")
    no(work / "out", f"{work / 'out'} exists and is not empty", "Name another target")
    no(work / "out", f"{work / 'out'} is not replaced", "Name another target", overwrite=True)
    assert (work / "out" / "mine").read_text() == "precious"


def test_an_empty_one_and_one_to_overwrite_are_fine(no, work):
    (work / "out").mkdir()
    no.command(no.source, work / "out")
    no(work / "out", f"{work / 'out'} exists and is not empty", "add --overwrite")
    before = (work / "out").stat().st_ino
    no.command(no.source, work / "out", no.options(overwrite=True))
    assert (work / "out").stat().st_ino != before and not (work / "out.partial").exists()


def test_a_file(no, work):
    (work / "out").write_text("precious")
    no(work / "out", f"{work / 'out'} is a file", "does not exist yet")
    no(work / "out", f"{work / 'out'} is a file", "does not exist yet", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_source_itself(no, overwrite):
    no(no.source, f"{no.source} is the source itself", "elsewhere", overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_inside_the_source(no, overwrite):
    no(no.source / "out", f"lies inside the source {no.source}", "elsewhere", overwrite=overwrite)


def test_inside_the_source_by_a_link(no, work):
    (work / "link").symlink_to(no.source)
    no(work / "link" / "out", "lies inside the source", "elsewhere")


def test_around_the_source(no, work):
    no(work, "lies inside the target", "does not hold the source", overwrite=True)


def test_inside_the_reference(work):
    """It too is read."""
    options = Mcore2HfOptions(reference=str(work / "hf"))
    refused(
        mcore2hf,
        work / "mcore",
        work / "hf" / "out",
        options,
        fault=TargetError,
        says=f"lies inside the reference {work / 'hf'}",
        hint="elsewhere",
    )
    refused(
        mcore2hf,
        work / "mcore",
        work / "hf",
        Mcore2HfOptions(reference=str(work / "hf"), overwrite=True),
        fault=TargetError,
        says="is the reference itself",
        hint="elsewhere",
    )
    (work / "around").mkdir()
    shutil.copytree(work / "hf", work / "around" / "hf")
    refused(
        mcore2hf,
        work / "mcore",
        work / "around",
        Mcore2HfOptions(reference=str(work / "around" / "hf"), overwrite=True),
        fault=TargetError,
        says=f"the reference {work / 'around' / 'hf'} lies inside the target",
        hint="does not hold the reference",
    )


def test_a_parent_that_is_not_there(no, work):
    no(work / "no" / "such" / "out", f"{work / 'no' / 'such'}, where out would be written, does not exist", str(work))


def test_a_partial_that_is_not_ours(no, work):
    (work / "out.partial").mkdir()
    (work / "out.partial" / "mine").write_text("precious")
    no(work / "out", f"{work / 'out.partial'} is in the way and was not left by vlconv", "Move it elsewhere")


@pytest.mark.parametrize("place", ["out", "source", "inside"])
def test_a_dry_run_refuses_the_same(no, work, place):
    (work / "out").mkdir()
    (work / "out" / "mine").write_text("precious")
    target = {"out": work / "out", "source": no.source, "inside": no.source / "out"}[place]
    no(
        target,
        {"out": "is not empty", "source": "is the source itself", "inside": "lies inside"}[place],
        "",
        dry_run=True,
    )


def test_a_disk_too_small(no, work, monkeypatch):
    monkeypatch.setattr("os.statvfs", lambda path: type("Disk", (), {"f_bavail": 3, "f_frsize": 1000}))
    no(work / "out", "the output needs ", "Free some room")
