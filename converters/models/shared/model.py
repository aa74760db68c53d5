"""What a model offers.

Its config read from JSON, every tensor of its Hugging Face side with its shape, its traits, its releases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...tensors.spec import Shape
from .config import ModelConfig, TextConfig, VisionConfig
from .fields import Json, decide_tie
from .release import Family
from .traits import Prefixes, Traits

Shapes = dict[str, Shape]


@dataclass(frozen=True, slots=True)
class BridgeClasses:
    """The classes that Megatron-Bridge and transformers have for a model, as run_config.yaml names them.

    Attributes:
        provider: under the name that Megatron-Bridge's package exports since 0.2: its modules have been renamed since.
        vision_config: transformers' class of the vision tower's section.
        text_config: likewise, of the language model's; "" where the provider keeps none.
    """

    provider: str
    vision_config: str
    text_config: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """One model_type. The names are those of the Hub's files, which every reader knows."""

    model_type: str
    architecture: str  # config.json's "architectures"
    prefixes: Prefixes
    traits: Traits
    default_layout: str  # the trainer's naming that hf2mcore writes unless told: a key of LAYOUTS
    family: Family
    read_config: Callable[[Json, bool], ModelConfig]
    read_text: Callable[[TextConfig], Shapes]
    read_vision: Callable[[VisionConfig], Shapes]
    bridge: BridgeClasses

    @property
    def text_prefix(self) -> str:
        """What stands before `layers.`, `embed_tokens.`, `norm.`."""
        return self.prefixes.text

    @property
    def vision_prefix(self) -> str:
        """What stands before `blocks.`, `merger.`, `patch_embed.`."""
        return self.prefixes.vision

    def config(self, hf_config: Json, tied: bool | None = None) -> ModelConfig:
        """The integers of a config.json of transformers 4 or 5.

        Args:
            hf_config: the whole config.json.
            tied: whether the embeddings are tied, where the caller has decided it already; else the config must say so.

        Raises:
            CorruptError: a field is missing or impossible; it is named with its path.
        """
        return self.read_config(hf_config, decide_tie(hf_config).tied if tied is None else tied)

    def text_tensors(self, config: ModelConfig) -> Shapes:
        """The language decoder without the output layer.

        Names WITHOUT the prefix, as 'layers.0.mlp.up_proj.weight', with shapes.
        """
        return self.read_text(config.text)

    def vision_tensors(self, config: ModelConfig) -> Shapes:
        """The vision tower: names WITHOUT the prefix, as 'blocks.0.attn.qkv.weight', with shapes."""
        return self.read_vision(config.vision)

    def hf_tensors(self, config: ModelConfig) -> Shapes:
        """Every tensor of the model by its name on the Hub, with its shape; `lm_head.weight` only when untied."""
        tensors = {self.vision_prefix + name: shape for name, shape in self.vision_tensors(config).items()}
        tensors |= {self.text_prefix + name: shape for name, shape in self.text_tensors(config).items()}
        if not config.text.tied:
            tensors["lm_head.weight"] = (config.text.vocab, config.text.hidden)
        return tensors
