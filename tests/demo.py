"""`make demo`: a tiny Qwen3-VL to Megatron and back, with every proof. Needs no GPU, no network and some seconds.

With a directory as argument everything is made there and stays; else in a temporary one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from logits import logits
from tiny import tiny_config, write_tiny_hf

# Neither the command nor transformers has anything to fetch.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def main() -> int:
    """Run the demo; 0 when the logits are equal."""
    if len(sys.argv) > 1:
        return demo(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="vlconv-demo-") as directory:
        return demo(Path(directory))


def demo(work: Path) -> int:
    """Make, convert, convert back, verify, compute."""
    print(f"A tiny Qwen3-VL in {work}: random bfloat16 weights, real names, a tokenizer, an untied output layer.\n")
    tensors = write_tiny_hf(work / "tiny-qwen3-vl", tiny_config("qwen3_vl"), shards=2)
    print(f"  {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} parameters")
    print(f"  {', '.join(sorted(p.name for p in (work / 'tiny-qwen3-vl').iterdir()))}")
    step(
        "To Megatron, with the vocabulary padded as Megatron-LM pads it",
        work,
        "hf2mcore",
        "tiny-qwen3-vl",
        "megatron",
        "--make-vocab-size-divisible-by",
        "128",
    )
    step("And back; config and tokenizer come from megatron/huggingface", work, "mcore2hf", "megatron", "back")
    step("Every element of the two Hugging Face directories is the same", work, "verify", "tiny-qwen3-vl", "back")
    step("The Megatron checkpoint against the directory it was made from", work, "verify", "megatron", "tiny-qwen3-vl")
    print("\n== The same text and two images through both, in transformers\n")
    first, second = logits(work / "tiny-qwen3-vl"), logits(work / "back")
    difference = (first - second).abs().max().item()
    print(f"  logits {list(first.shape)}, standard deviation {first.std().item():.3f}, largest difference {difference}")
    print("\nEqual." if difference == 0 else "\nNOT EQUAL.")
    return 0 if difference == 0 else 1


def step(what: str, work: Path, *arguments: str) -> None:
    """Run one vlconv command as a user would, showing it and what it says."""
    print(f"\n== {what}\n\n  $ vlconv {' '.join(arguments)}", flush=True)
    run = subprocess.run(
        [sys.executable, "-m", "vlconv", *arguments],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print("".join(f"  {line}\n" for line in run.stdout.splitlines()), end="", flush=True)
    if run.returncode:
        sys.exit(f"\nvlconv {arguments[0]} ended with exit code {run.returncode}.")


if __name__ == "__main__":
    sys.exit(main())
