"""What a model says of every token of the vocabulary at every place of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from logits import load
from torch import Tensor

from .prompts import Prompt


@dataclass(frozen=True)
class Logprobs:
    """The tokens of a prompt, images unfolded, and log-probabilities [tokens - 1, vocabulary] of each next one."""

    tokens: list[int]
    values: Tensor

    def distance(self, other: Logprobs) -> float:
        """The largest difference of any log-probability; the tokens must be the same."""
        assert self.tokens == other.tokens
        assert self.values.shape == other.values.shape
        return (self.values - other.values).abs().max().item()


def transformers_logprobs(directory: Path, prompts: dict[str, Prompt]) -> dict[str, Logprobs]:
    """By transformers, in float32, with the directory's own tokenizer and processor."""
    import torch
    from transformers import AutoProcessor, AutoTokenizer

    sees = any(prompt.sizes for prompt in prompts.values())
    processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(directory, local_files_only=True)
    model = load(directory)
    found = {}
    for name, prompt in prompts.items():
        images = {"images": prompt.images() or None} if sees else {}
        batch = processor(text=[prompt.text], **images, return_tensors="pt")
        with torch.inference_mode():
            values = model(**batch).logits[0].float().log_softmax(-1)
        found[name] = Logprobs(batch["input_ids"][0].tolist(), values[:-1])
    return found
