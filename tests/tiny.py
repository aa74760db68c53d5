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

from vlconv.converters.models import MODELS, Shapes, model_for

IDS = {
    "bos_token_id": 280,
    "im_start": 281,
    "eos_token_id": 282,
    "vision_start_token_id": 283,
    "vision_end_token_id": 284,
    "image_token_id": 286,
    "video_token_id": 287,
}
VOCAB = 300

_TEXT: dict[str, Any] = {
    "attention_dropout": 0.0,
    "bos_token_id": IDS["bos_token_id"],
    "eos_token_id": IDS["eos_token_id"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
    "vocab_size": VOCAB,
}

_QWEN3_TEXT: dict[str, Any] = _TEXT | {
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 16,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
    "rope_theta": 5000000,
}

_MOE: dict[str, Any] = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}

_VISION: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "num_heads": 4,
    "out_hidden_size": 64,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}

_QWEN3_VISION: dict[str, Any] = _VISION | {
    "deepstack_visual_indexes": [0, 2],
    "hidden_act": "gelu_pytorch_tanh",
    "in_channels": 3,
    "num_position_embeddings": 16,
}

_QWEN25_VISION: dict[str, Any] = _VISION | {
    "fullatt_block_indexes": [1, 3],
    "hidden_act": "silu",
    "in_chans": 3,
    "tokens_per_second": 2,
    "window_size": 16,
}


def tiny_config(
    model_type: str = "qwen3_vl",
    *,
    tied: bool = False,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    **top: Any,
) -> dict[str, Any]:
    """A config.json as transformers 4.57 and the Hub write it, of tiny geometry: 4 layers, hidden 64, 8 heads in 4
    groups, vocabulary 300, vision depth 4.

    Args:
        model_type: a key of MODELS.
        tied: tie_word_embeddings, in both places.
        text: fields of the language model to set or, with None as value, to remove.
        vision: the same for the vision tower.
        top: the same for the top level.
    """
    ids = {
        name: IDS[name] for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    config: dict[str, Any] = {
        "architectures": [MODELS[model_type].architecture],
        "model_type": model_type,
        "tie_word_embeddings": tied,
        **ids,
    }
    if model_type == "qwen2_5_vl":  # the Hub's configs of Qwen2.5-VL are flat
        config |= _TEXT | {
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
            "rope_theta": 1000000.0,
            "torch_dtype": "bfloat16",
        }
        config |= {
            "max_window_layers": 4,
            "sliding_window": 4096,
            "use_sliding_window": False,
            "vision_config": {"model_type": model_type, **_QWEN25_VISION},
        }
    else:
        config["text_config"] = (
            _QWEN3_TEXT
            | (_MOE if model_type == "qwen3_vl_moe" else {})
            | {"model_type": f"{model_type}_text", "tie_word_embeddings": tied}
        )
        config["vision_config"] = {"model_type": model_type, **_QWEN3_VISION}
    config = copy.deepcopy(config)
    for section, changes in (
        (config.get("text_config", config), text),
        (config["vision_config"], vision),
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


def tiny_weights(shapes: Shapes, seed: int = 0, dtype: str = "bfloat16") -> dict[str, Any]:
    """Random torch tensors at the scale of a fresh initialisation, so that every one of them matters in a forward pass.

    Each depends on the seed and its name alone. Matrices have standard deviation 1/sqrt(inputs), norms scatter about 1,
    biases about 0.
    """
    import torch

    tensors = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            value = 0.1 * noise + (1.0 if "norm" in name or "ln_q" in name else 0.0) * (not name.endswith("bias"))
        else:
            inputs = shape[-2] if ".mlp.experts." in name and not name.endswith(".weight") else prod(shape[1:])
            value = noise * inputs**-0.5
        tensors[name] = value.to(getattr(torch, dtype))
    return tensors


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
    directory: Path, config: dict[str, Any] | None = None, seed: int = 0, dtype: str = "bfloat16", shards: int = 1
) -> dict[str, Any]:
    """Make a complete Hugging Face directory of a tiny model and return its tensors (torch) by name."""
    config = tiny_config() if config is None else config
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_side_files(directory, config)
    tensors = tiny_weights(tiny_shapes(config), seed, dtype)
    write_weights(directory, tensors, shards)
    return tensors


def write_side_files(directory: Path, config: dict[str, Any]) -> None:
    """Write what lies beside the weights in a release: generation_config, tokenizer, processors, chat template."""
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
    patch = config["vision_config"]["patch_size"]
    processor = {
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"longest_edge": 16384, "shortest_edge": 64},
    }
    processor |= {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
    }
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
        "preprocessor_config.json": processor,
        "video_preprocessor_config.json": processor | {"video_processor_type": "Qwen3VLVideoProcessor"},
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
