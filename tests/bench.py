"""`make bench`: speed against `cp` of the same bytes, and memory, on a Qwen3-VL-2B geometry with random weights.

    make bench                          2B, three runs of each
    make bench ARGS="--runs 1 --work /fast/disk"

Each run copies the source with `cp -r` and `sync`, then converts it, both as whole processes, one after the other, so
that a ratio compares like with
like on a noisy machine. Memory is the largest sum of anonymous and shared pages (RssAnon + RssShmem) of the process and
its children, polled.
Needs four times the model's bytes of disk; removes all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mcore import ranks
from mcore.topology import Topology
from tiny import tiny_config

from vlconv.converters.formats.safetensors import plan_hf
from vlconv.converters.models import MODELS
from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig
from vlconv.converters.tensors.spec import TensorSpec

TEXT = {
    "layers": 28,
    "hidden": 2048,
    "heads": 16,
    "groups": 8,
    "head_dim": 128,
    "ffn": 6144,
    "vocab": 151936,
    "tied": True,
}
VISION = {
    "depth": 24,
    "hidden": 1024,
    "heads": 16,
    "ffn": 4096,
    "out_hidden": 2048,
    "patch": 16,
    "temporal_patch": 2,
    "channels": 3,
    "merge": 2,
    "positions": 2304,
}


class Run(NamedTuple):
    """A finished process."""

    seconds: float
    cpu: float
    megabytes: float


def main() -> int:
    """Make, measure, verify, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where to make the files; default: a temporary directory")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="vlconv-bench-", dir=options.work))
    try:
        return bench(work, options.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def bench(work: Path, runs: int) -> int:
    """Both directions, then verify."""
    config = ModelConfig("qwen3_vl", TextConfig(**TEXT), VisionConfig(**VISION, deepstack=(5, 11, 17)))
    make_hf(work / "huggingface", config)
    (work / "mcore").mkdir()
    ranks.run(
        4,
        "mcore.bulk:write_from",
        str(work / "mcore"),
        config,
        str(work / "huggingface" / "model.safetensors"),
        Topology(tp=2, pp=2),
        timeout=600,
    )
    print(
        f"{size(work / 'mcore') / 1e9:.2f} GB, written by megatron-core at TP2 x PP2: "
        f"{len(list((work / 'mcore').glob('*.distcp')))} files\n"
    )
    measure("mcore2hf", work / "mcore", work / "out", runs)
    measure("hf2mcore", work / "huggingface", work / "out", runs)
    vlconv("hf2mcore", work / "huggingface", work / "out")
    done = [vlconv("verify", work / "mcore", work / "huggingface"), vlconv("verify", work / "mcore", work / "out")]
    seconds = f"{done[0].seconds:.1f} s and {done[1].seconds:.1f} s"
    print(
        "\nverify megatron-core's checkpoint against the Hugging Face directory, and against hf2mcore's: same, "
        f"{seconds}"
    )
    return 0


def measure(command: str, source: Path, target: Path, runs: int) -> None:
    """Pairs of cp and conversion."""
    pairs = []
    for _ in range(runs):
        copied = process(["sh", "-c", f"cp -r '{source}' '{target}' && sync"])
        shutil.rmtree(target)
        os.sync()
        pairs.append((copied, vlconv(command, source, target)))
        shutil.rmtree(target)
        os.sync()
        print(f"  {command}: cp {copied.seconds:.2f} s, vlconv {pairs[-1][1].seconds:.2f} s", flush=True)
    ratios = [b.seconds / a.seconds for a, b in pairs]
    cpu = [b.cpu for _, b in pairs]
    memory = max(b.megabytes for _, b in pairs)
    ratio = f"{statistics.median(ratios):.2f} x cp (from {min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{command}: {ratio}, {statistics.median(cpu):.1f} CPU s, {memory:.0f} MB anonymous\n", flush=True)


def vlconv(*arguments: str | Path) -> Run:
    """The command as a user runs it."""
    return process([sys.executable, "-m", "vlconv", str(arguments[0]), "--quiet", *map(str, arguments[1:])])


def process(command: list[str]) -> Run:
    """Run to the end, polling memory."""
    begin, before, peak = time.monotonic(), os.times(), 0
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        peak = max(peak, sum(map(anonymous, family(child.pid))))
        time.sleep(0.01)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(time.monotonic() - begin, cpu, peak / 1e6)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = [
            int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()
        ]
    except OSError:
        children = []
    return [pid, *(p for child in children for p in family(child))]


def anonymous(pid: int) -> int:
    """Bytes of RssAnon and RssShmem."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def size(directory: Path) -> int:
    """Bytes of all files."""
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())


def make_hf(directory: Path, config: ModelConfig) -> None:
    """A Hugging Face directory of random finite bfloat16 weights and a config.json that fits."""
    directory.mkdir()
    specs = {name: TensorSpec(name, shape, "bfloat16") for name, shape in MODELS["qwen3_vl"].hf_tensors(config).items()}
    random = np.random.default_rng(0)
    for file in plan_hf(specs, 10**12):
        with (directory / file.name).open("wb") as out:
            for offset, data in file.literals:
                out.seek(offset)
                out.write(data)
            for box, offset in file.pieces:
                out.seek(offset)
                for first in range(0, box.size, 1 << 22):
                    # the sign and 14 bits below the exponent's top one: any number smaller than two
                    out.write(
                        (
                            random.integers(0, 1 << 16, min(1 << 22, box.size - first), dtype=np.uint16) & 0xBFFF
                        ).tobytes()
                    )
    (directory / "config.json").write_text(json.dumps(hf_config(config)))


def hf_config(config: ModelConfig) -> dict[str, object]:
    """The tiny model's config.json with real sizes."""
    t, v = config.text, config.vision
    text = {
        "num_hidden_layers": t.layers,
        "hidden_size": t.hidden,
        "num_attention_heads": t.heads,
        "num_key_value_heads": t.groups,
        "head_dim": t.head_dim,
    }
    text |= {"intermediate_size": t.ffn, "vocab_size": t.vocab}
    vision = {
        "depth": v.depth,
        "hidden_size": v.hidden,
        "num_heads": v.heads,
        "intermediate_size": v.ffn,
        "out_hidden_size": v.out_hidden,
    }
    vision |= {
        "patch_size": v.patch,
        "num_position_embeddings": v.positions,
        "deepstack_visual_indexes": list(v.deepstack),
    }
    return tiny_config("qwen3_vl", tied=True, text=text, vision=vision)


if __name__ == "__main__":
    sys.exit(main())
