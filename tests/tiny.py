"""Tiny models in the image of the releases: config.json, weights, tokenizer and processor files, made without a
network.

Dimensions differ where a mix-up could hide: vocabulary, FFN, expert FFN and vision widths. The vocabulary is no
multiple of 128.
"""

from __future__ import annotations

import copy
import json
import zlib
from math import prod
from pathlib import Path
from typing import Any

from tiny_fields import ARCHITECTURES, IDS, NESTED, TEXTS, VISIONS, VOCAB

from vlconv.converters.models import Shapes, model_for

__all__ = [
    "IDS",
    "VOCAB",
    "tiny_config",
    "tiny_shapes",
    "tiny_weights",
    "write_side_files",
    "write_tiny_hf",
    "write_weights",
]


def tiny_config(
    model_type: str = "qwen3_vl",
    *,
    tied: bool = False,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    **top: Any,
) -> dict[str, Any]:
    """A config.json as transformers and the Hub write it, of tiny geometry: 4 layers, hidden 64, 8 heads in 4 groups
    (in 2 where there is no deepstack and no tower of windows), vocabulary 300, vision depth 4.

    Args:
        model_type: one of tiny_fields.TEXTS.
        tied: tie_word_embeddings, in both places.
        text: fields of the language model to set or, with None as value, to remove.
        vision: the same for the vision tower.
        top: the same for the top level.
    """
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "tie_word_embeddings": tied,
    }
    if model_type in NESTED:
        config["text_config"] = TEXTS[model_type] | {"model_type": f"{model_type}_text", "tie_word_embeddings": tied}
    else:
        config |= TEXTS[model_type]
    if model_type in VISIONS:
        config |= {name: i for name, i in IDS.items() if name.startswith(("image_", "video_", "vision_"))}
        config["vision_config"] = {"model_type": model_type, **VISIONS[model_type]}
    config = copy.deepcopy(config)
    for section, changes in (
        (config.get("text_config", config), text),
        (config.get("vision_config", {}), vision),
        (config, top),
    ):
        section.update(changes or {})
        for name in [n for n, value in (changes or {}).items() if value is None]:
            del section[name]
    return config


def tiny_shapes(config: dict[str, Any]) -> Shapes:
    """Names and shapes of the weights that go with a config."""
    model = model_for(config)
    return model.hf_tensors(model.config(config))


def tiny_weights(
    shapes: Shapes, seed: int = 0, dtype: str = "bfloat16", *, delta_dtype: str = "float32", fine: bool = False
) -> dict[str, Any]:
    """Random torch tensors at the scale of a fresh initialisation, so that every one of them matters in a forward pass.

    Each depends on the seed and its name alone, and on whether there is a Gated DeltaNet among the names. Matrices have
    standard deviation 1/sqrt(inputs), norms scatter about 1, biases about 0. Beside a Gated DeltaNet the language
    model's norms are zero-centred, but for its own.

    Args:
        shapes: name -> shape.
        seed: another one, other numbers.
        dtype: of all tensors but those of `delta_dtype`.
        delta_dtype: of A_log and linear_attn.norm.weight where the Hub has them in float32: Qwen3.5; "bfloat16" as in
            Qwen3.6.
        fine: those have numbers that bfloat16 does not hold; else a trainer that rounds them loses nothing.
    """
    import torch

    hybrid = any(".linear_attn." in name for name in shapes)
    wide = any(".linear_attn.in_proj_qkv." in name for name in shapes) and dtype == "bfloat16"
    tensors = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            value = 0.1 * noise + _centre(name, hybrid)
        else:
            value = noise * _inputs(name, shape, hybrid) ** -0.5
        if name.endswith((".A_log", ".dt_bias")):
            value = 5 * value  # a head forgets half of its state in one token, or in ten
        if wide and name.endswith((".A_log", ".linear_attn.norm.weight")):
            tensors[name] = (value if fine else value.bfloat16()).to(getattr(torch, delta_dtype))
        else:
            tensors[name] = value.to(getattr(torch, dtype))
    return tensors


def _centre(name: str, hybrid: bool) -> float:
    """What the numbers of a vector scatter about."""
    if name.endswith("bias") or not ("norm" in name or "ln_q" in name):
        return 0.0
    return 0.0 if hybrid and not name.startswith("model.visual.") and ".linear_attn." not in name else 1.0


def _inputs(name: str, shape: tuple[int, ...], hybrid: bool) -> int:
    """How many numbers a matrix sums up for one; experts in one tensor are [E, in, out], beside a Gated DeltaNet
    [E, out, in].
    """
    packed = ".mlp.experts." in name and not name.endswith(".weight")
    return shape[-1 if hybrid else -2] if packed else prod(shape[1:])


def write_weights(directory: Path, tensors: dict[str, Any], shards: int = 1) -> None:
    """Save tensors as one model.safetensors, or as shards with an index."""
    from safetensors.torch import save_file

    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n"
    )


def write_tiny_hf(
    directory: Path,
    config: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: str = "bfloat16",
    shards: int = 1,
    tensors: dict[str, Any] | None = None,
    **delta: Any,
) -> dict[str, Any]:
    """Make a complete Hugging Face directory of a tiny model and return its tensors (torch) by name: `tensors` if they
    are given; `delta` as in tiny_weights.
    """
    config = tiny_config() if config is None else config
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_side_files(directory, config)
    tensors = tiny_weights(tiny_shapes(config), seed, dtype, **delta) if tensors is None else tensors
    write_weights(directory, tensors, shards)
    return tensors


def write_side_files(directory: Path, config: dict[str, Any]) -> None:
    """Write what lies beside the weights in a release: generation_config, tokenizer, chat template, and processors
    where there is a vision tower.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in "etao" for b in "hinrsd"]
    vocab = {token: i for i, token in enumerate([*letters, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"]
    special = [f"<|{name}|>" for name in names]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(directory / "tokenizer.json"))
    added = {
        str(len(vocab) + i): {"content": token, "special": True, "normalized": False, "lstrip": False, "rstrip": False}
        for i, token in enumerate(special)
    }
    tokens = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 4096,
        "added_tokens_decoder": added,
    }
    documents: dict[str, Any] = {
        "vocab.json": vocab,
        "tokenizer_config.json": tokens,
        "generation_config.json": {
            "bos_token_id": IDS["bos_token_id"],
            "eos_token_id": [IDS["eos_token_id"], IDS["bos_token_id"]],
            "do_sample": True,
            "top_k": 20,
        },
    }
    if "vision_config" in config:
        documents |= _processors(config["vision_config"]["patch_size"])
    else:
        tokens["chat_template"] = CHAT_TEMPLATE
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def _processors(patch: int) -> dict[str, Any]:
    """What makes patches of images and videos."""
    processor = {
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"longest_edge": 16384, "shortest_edge": 64},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
    }
    return {
        "preprocessor_config.json": processor,
        "video_preprocessor_config.json": processor | {"video_processor_type": "Qwen3VLVideoProcessor"},
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
