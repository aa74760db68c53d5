"""What is run beside what: `cp` or `cat` of the same bytes, vlconv, and other programs."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .checkout import module, vlconv
from .making import Made, files, many
from .process import measure

RIVALS = {
    "dcp_to_torch_save": ("dcp_to_torch_save (torch)", ("torch",)),
    "load_plain_tensors": ("load_plain_tensors + save_file (megatron-core)", ("torch", "megatron.core", "safetensors")),
    "from_pretrained": ("from_pretrained + save_pretrained (transformers)", ("torch", "transformers")),
}
"""A function of rival.py -> what it is called, and what it needs."""

NAMES = ("mcore2hf", "hf2mcore", "mcore2mcore", "legacy", "verify")
"""What --only may name of these."""


class Contender(NamedTuple):
    """A program.

    Attributes:
        name: what it is called.
        command: it writes to the target of its comparison.
        threads: what it was asked for; None: nothing.
        proof: a command that holds the output against the source; () for none.
        rival: it is not vlconv, and may fail.
    """

    name: str
    command: Sequence[str]
    threads: int | None = None
    proof: Sequence[str] = ()
    rival: bool = False


class Comparison(NamedTuple):
    """Programs that read the same.

    Attributes:
        name: of vlconv's command, with what options it needs.
        reads: directories.
        baseline: what the others are held against.
        contenders: what is held against it.
    """

    name: str
    reads: list[Path]
    baseline: Contender
    contenders: list[Contender]


class Forms(NamedTuple):
    """Where a model lies in its forms, and the target of every command."""

    made: Made
    legacy: Path
    target: Path
    threads: Sequence[int]  # that are asked for besides none
    rivals: bool

    @property
    def topology(self) -> list[str]:
        """Of the legacy files."""
        text = self.made.config["text_config"]
        pipeline = ("--pp", "2") if text["num_hidden_layers"] % 2 == 0 else ()
        return ["--tp", "2", *pipeline, *(("--ep", "2", "--etp", "1") if "num_experts" in text else ())]


def comparisons(forms: Forms, only: Sequence[str]) -> Iterator[Comparison]:
    """Those that are asked for, one by one: what the next one reads is made when it is asked for."""
    mcore, hf = forms.made.mcore, forms.made.hf
    if "mcore2hf" in only:
        yield _conversion(forms, ["mcore2hf"], mcore, ["dcp_to_torch_save", "load_plain_tensors"])
    if "hf2mcore" in only:
        yield _conversion(forms, ["hf2mcore"], hf, ["from_pretrained"])
    if "mcore2mcore" in only:
        yield _conversion(forms, ["mcore2mcore", "--as-layout", "pai"], mcore)
    if "legacy" in only:
        written = ["hf2mcore", "--format", "torch", *forms.topology]
        yield _conversion(forms, written, hf)
        measure(vlconv("hf2mcore", "--quiet", hf, forms.legacy, *written[1:]))
        yield _conversion(forms, ["mcore2hf"], forms.legacy, title="mcore2hf of legacy files")
        shutil.rmtree(forms.legacy)
    if "verify" in only:
        both = [mcore, hf]
        cat = ["sh", "-c", f"cat {shlex.join(map(str, many(both)))} > /dev/null"]
        ours = [_ours(["verify", mcore, hf], threads) for threads in (None, *forms.threads)]
        yield Comparison("verify A B", both, Contender("cat A/* B/* > /dev/null", cat), ours)


def _conversion(
    forms: Forms, command: list[str], source: Path, rivals: Sequence[str] = (), title: str | None = None
) -> Comparison:
    target = forms.target
    proof = vlconv("verify", "--quiet", source, target)
    ours = [
        _ours([command[0], source, target, *command[1:]], threads, () if threads else proof)
        for threads in (None, *forms.threads)
    ]
    theirs = [
        Contender(RIVALS[name][0], module("bench.rival", name, source, target), rival=True)
        for name in (rivals if forms.rivals else ())
        if not missing(name)
    ]
    return Comparison(
        title or " ".join(command), [source], Contender("cp -r, sync", _copy(source, target)), ours + theirs
    )


def _ours(arguments: list[object], threads: int | None, proof: Sequence[str] = ()) -> Contender:
    command = vlconv(arguments[0], "--quiet", *arguments[1:], *(("--threads", threads) if threads else ()))
    return Contender("vlconv", command, threads, proof)


def _copy(source: Path, target: Path) -> list[str]:
    """`cp -r SOURCE TARGET && sync TARGET/*`, whatever folders the files lie in."""
    copied = [target / path.relative_to(source) for path in files(source)]
    return [
        "sh",
        "-c",
        f"{shlex.join(['cp', '-r', str(source), str(target)])} && {shlex.join(['sync', *map(str, copied)])}",
    ]


def missing(rival: str) -> list[str]:
    """The modules that another program needs and that are not here."""
    return [name for name in RIVALS[rival][1] if not _there(name)]


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not there
        return False
