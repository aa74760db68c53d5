"""What all vision towers share: the integers of their config, and modules of a weight and a bias."""

from __future__ import annotations

from ...errors import CorruptError
from .config import VisionConfig
from .fields import MOST_LAYERS, Fields, Json
from .model import Shapes
from .traits import Traits


def vision_config(hf_config: Json, traits: Traits) -> VisionConfig:
    """The integers of a config.json's vision_config.

    Args:
        hf_config: the whole config.json.
        traits: asked for position_table and deepstack.
    """
    vision = Fields(hf_config.get("vision_config"), "vision_config")
    depth, hidden, heads = (
        vision.integer("depth", most=MOST_LAYERS),
        vision.integer("hidden_size"),
        vision.integer("num_heads"),
    )
    if hidden % heads:
        raise CorruptError(
            f"config.json: vision_config.hidden_size {hidden} is not a multiple of vision_config.num_heads {heads}"
        )
    if traits.deepstack and not vision.has("deepstack_visual_indexes"):
        raise CorruptError("config.json: vision_config.deepstack_visual_indexes is missing")
    return VisionConfig(
        depth=depth,
        hidden=hidden,
        heads=heads,
        ffn=vision.integer("intermediate_size"),
        out_hidden=vision.integer("out_hidden_size"),
        patch=vision.integer("patch_size"),
        temporal_patch=vision.integer("temporal_patch_size"),
        channels=vision.integer("in_channels", "in_chans"),  # the latter in the Hub's Qwen2.5-VL configs
        merge=vision.integer("spatial_merge_size"),
        positions=vision.integer("num_position_embeddings") if traits.position_table else 0,
        deepstack=vision.integers("deepstack_visual_indexes", most=depth) if traits.deepstack else (),
    )


def linear(name: str, rows: int, columns: int) -> Shapes:
    """A Linear with bias."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def layer_norm(name: str, width: int) -> Shapes:
    """A LayerNorm, which has a bias too."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def blocks(depth: int, block: Shapes) -> Shapes:
    """The same block `depth` times."""
    return {f"blocks.{layer}.{name}": shape for layer in range(depth) for name, shape in block.items()}
