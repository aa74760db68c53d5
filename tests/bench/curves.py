"""What grows with what: bytes, tensors, chunks, files and threads, each varied while the others stay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import checkout, geometry, machine, making, process
from .rounds import Say, repeated
from .starts import chunked

NAMES = ("bytes", "threads", "tensors", "chunks", "files")
"""What --curves may name."""

WAYS = ("mcore2hf", "hf2mcore")

Curve = dict[str, Any]


class Steps(NamedTuple):
    """How far each is varied.

    Attributes:
        ffn: of four layers of hidden 2048: each is 48 KiB of weights.
        layers: of a model of next to no bytes: each is eleven tensors.
        tp: of a model with experts and next to no bytes: each cuts its chunks.
        expert_layers: of that model.
        files: of one model.
        times: each point is run; the least seconds and CPU seconds of them count, and the most memory.
    """

    ffn: Sequence[int]
    layers: Sequence[int]
    tp: Sequence[int]
    expert_layers: int
    files: Sequence[int]
    times: int

    @property
    def need(self) -> int:
        """Bytes on the disk at once: two forms and an output of the widest model, or all rows of shards, too."""
        shards = (3 + len(self.files)) * geometry.nbytes(_many_layers())
        return max(3 * geometry.nbytes(_wide(self.ffn[-1])), shards)


FULL = Steps((5120, 10240, 20480, 40960, 81920), (100, 400, 800, 1600), (1, 2, 4, 8), 94, (1, 8, 32, 64), 3)
QUICK = Steps((2048, 4096, 8192), (50, 100, 200), (1, 2, 4), 12, (1, 4, 16), 1)


def _wide(ffn: int) -> geometry.Config:
    return geometry.dense(4, intermediate_size=ffn, vocab_size=2048)


def _many_layers() -> geometry.Config:
    return geometry.dense(64, hidden_size=512, intermediate_size=2048, vocab_size=2048)


class Job(NamedTuple):
    """A command and the directory that it writes."""

    command: list[str]
    target: Path


class Curves:
    """Makes models, one after the other, and runs what is measured on them.

    Args:
        folder: to make everything in; removed between models.
        steps: how far.
        say: is told of every point.
    """

    def __init__(self, folder: Path, steps: Steps, say: Say) -> None:
        self._folder, self._steps, self._say = folder, steps, say
        self._target = folder / "out"

    def some(self, names: Sequence[str]) -> Iterator[Curve]:
        """The curves, each as it is done: name, what x counts, and the points with their runs."""
        families = (self._bytes, self._threads, self._tensors, self._chunks, self._files)
        for name, family in zip(NAMES, families, strict=True):
            if name in names:
                yield from family()
                shutil.rmtree(self._folder)

    def _bytes(self) -> Iterator[Curve]:
        yield from self._grown("bytes", "GB", map(_wide, self._steps.ffn), lambda made: made.nbytes / 1e9)

    def _threads(self) -> Iterator[Curve]:
        made = self._made(_wide(self._steps.ffn[-1]))
        for way in WAYS:
            jobs = [(count, self._job(way, made, "--threads", count)) for count in threads(machine.cores())]
            yield self._curve(f"{way}, threads", "thread", jobs)

    def _tensors(self) -> Iterator[Curve]:
        configs = map(geometry.tiny, self._steps.layers)
        yield from self._grown("tensors", "tensor", configs, lambda made: len(geometry.specs(made.config)))

    def _grown(self, what: str, unit: str, configs: Iterator[geometry.Config], x: Any) -> Iterator[Curve]:
        """Both ways over several models."""
        points: dict[str, list[Any]] = {way: [] for way in WAYS}
        for config in configs:
            made = self._made(config)
            for way in WAYS:
                points[way].append(self._point(f"{way}, {what}", x(made), self._job(way, made)))
        yield from ({"name": f"{way}, {what}", "unit": unit, "points": points[way]} for way in WAYS)

    def _chunks(self) -> Iterator[Curve]:
        made = self._made(geometry.tiny_235b(self._steps.expert_layers))
        planned, converted = [], []
        for tp in self._steps.tp:
            source, counts = chunked(made, tp)
            job = self._job("mcore2hf", made._replace(mcore=source))
            planned.append((counts["chunks"], job._replace(command=[*job.command, "--dry-run"])))
            converted.append((counts["chunks"], job))
        yield self._curve("planning, chunks", "chunk", planned)
        yield self._curve("mcore2hf, chunks", "chunk", converted)

    def _files(self) -> Iterator[Curve]:
        """mcore2hf in ever smaller shards, and hf2mcore of these."""
        made = self._made(_many_layers())
        written, read = [], []
        for number in self._steps.files:
            shards = self._folder / f"shards{number}"
            options = ("--max-shard-size", f"{-(-made.nbytes // number)}B")
            process.measure(checkout.vlconv("mcore2hf", "--quiet", made.mcore, shards, *options))
            count = len(list(shards.glob("*.safetensors")))
            written.append((count, self._job("mcore2hf", made, *options)))
            read.append((count, self._job("hf2mcore", made._replace(hf=shards))))
        yield self._curve("mcore2hf, files written", "file", written)
        yield self._curve("hf2mcore, files read", "file", read)

    def _made(self, config: geometry.Config) -> making.Made:
        shutil.rmtree(self._folder, ignore_errors=True)
        return making.make(self._folder, config, megatron=False)

    def _job(self, way: str, made: making.Made, *options: object) -> Job:
        source = made.mcore if way == "mcore2hf" else made.hf
        return Job(checkout.vlconv(way, "--quiet", source, self._target, *options), self._target)

    def _curve(self, name: str, unit: str, jobs: list[tuple[float, Job]]) -> Curve:
        return {"name": name, "unit": unit, "points": [self._point(name, x, job) for x, job in jobs]}

    def _point(self, curve: str, x: float, job: Job) -> dict[str, Any]:
        runs = repeated(job.command, self._steps.times, job.target)
        self._say(f"  {curve}: at {x:g} {min(run.seconds for run in runs):.2f} s")
        return {"x": x, "runs": [run._asdict() for run in runs]}


def threads(cores: int) -> list[int]:
    """1, 2, 4 and so on to the number of cores, and 4 at least."""
    return [1 << i for i in range(20) if 1 << i <= max(cores, 4)]
