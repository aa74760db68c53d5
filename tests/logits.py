"""A forward pass in transformers, 4.57 or 5:
text and, for what has a vision tower, two images of different grids, made by hand, so without processor, torchvision
and network.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

GRIDS = ((1, 4, 6), (1, 6, 4))
"""Patches of each image: time, height, width."""


def inputs(config: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Two sequences of one length, each of text, an image and text again; of text alone where there is no tower."""
    import torch

    if "vision_config" not in config:
        ids = torch.randint(config["vocab_size"], (2, 15), generator=torch.Generator().manual_seed(seed))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    vision, vocab = config["vision_config"], config.get("text_config", config)["vocab_size"]
    merge, start, end, image = (
        vision["spatial_merge_size"],
        config["vision_start_token_id"],
        config["vision_end_token_id"],
        config["image_token_id"],
    )
    channels = vision.get("in_channels", vision.get("in_chans", 3))
    generator = torch.Generator().manual_seed(seed)
    low = min(start, end, image, vocab) - 6  # below every special token
    rows = []
    for t, h, w in GRIDS:
        words = torch.randint(low, (9,), generator=generator).tolist()
        rows.append([*words[:4], start, *[image] * (t * h * w // merge**2), end, *words[4:]])
    ids = torch.tensor(rows)
    patches = sum(t * h * w for t, h, w in GRIDS)
    pixels = torch.randn(
        patches, channels * vision["temporal_patch_size"] * vision["patch_size"] ** 2, generator=generator
    )
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor(GRIDS),
        "mm_token_type_ids": (ids == image).int(),
    }


def load(directory: Path, dtype: str = "float32") -> Any:
    """The model of a directory, computing in `dtype`.

    Any weight that is missing, left over or of another shape is an error, but for those of a multi-token-prediction
    head, which transformers does not have.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = json.loads((directory / "config.json").read_text())
    auto = transformers.AutoModelForImageTextToText if "vision_config" in config else transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        attn_implementation="eager",
        output_loading_info=True,
        local_files_only=True,
    )
    surplus = {name for name in info.pop("unexpected_keys") if not name.startswith("mtp.")}
    faults = {what: found for what, found in {**info, "unexpected_keys": surplus}.items() if found}
    assert not faults, faults
    return model.eval()


def forward(model: Any, config: dict[str, Any], seed: int = 0) -> Any:
    """Logits in float32, [2, tokens, vocabulary]."""
    import torch

    batch = inputs(config, seed)
    if "mm_token_type_ids" not in inspect.signature(model.forward).parameters:
        batch.pop("mm_token_type_ids", None)  # transformers 4.57 finds the images by itself
    with torch.inference_mode():
        return model(**batch).logits.float()


def logits(directory: Path, seed: int = 0) -> Any:
    """Logits in float32, [2, tokens, vocabulary], of a Hugging Face directory."""
    return forward(load(directory), json.loads((directory / "config.json").read_text()), seed)
