"""What a model offers.

Its config read from JSON, every tensor of its Hugging Face side with its shape, its traits, its releases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...tensors.spec import Shape
from .config import ModelConfig, TextConfig, VisionConfig
from .fields import Json, Tie, decide_tie
from .release import Family
from .traits import Prefixes, Traits

Shapes = dict[str, Shape]

MTP = "mtp."
"""What the names of a multi-token-prediction head begin with, whatever the model."""


def nothing(config: TextConfig) -> tuple[str, ...]:
    """No tensor."""
    return ()


@dataclass(frozen=True, slots=True)
class BridgeClasses:
    """The classes that Megatron-Bridge and transformers have for a model, as run_config.yaml names them.

    Attributes:
        provider: under the name that Megatron-Bridge's package exports since 0.2: its modules have been renamed since.
            What has no tower is an ordinary GPTModelProvider since 0.4.
        vision_config: transformers' class of the vision tower's section; "" where the model has none.
        text_config: likewise, of the language model's; "" where the provider keeps none.
        layer_spec: the function that says what each layer is made of, where the provider's own does not; "" where it
            does.
    """

    provider: str
    vision_config: str = ""
    text_config: str = ""
    layer_spec: str = ""


GPT = BridgeClasses(provider="megatron.bridge.models.GPTModelProvider")
"""Of text-only models: Megatron-Bridge has no class of their own since 0.4."""

HYBRID_GPT = BridgeClasses(
    provider=GPT.provider,
    layer_spec="megatron.core.models.gpt.experimental_attention_variant_module_specs"
    ".get_transformer_block_with_experimental_attention_variant_spec",
)
"""Of those with Gated DeltaNets: the function is megatron-core's, from 0.16 on."""


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
    read_mtp: Callable[[TextConfig], Shapes]
    read_vision: Callable[[VisionConfig], Shapes] | None  # None: it has no tower
    bridge: BridgeClasses | None  # None: nothing is written for Megatron-Bridge's loaders
    kept_wide: Callable[[TextConfig], tuple[str, ...]] = nothing  # see float32_tensors; names WITHOUT the prefix

    @property
    def text_prefix(self) -> str:
        """What stands before `layers.`, `embed_tokens.`, `norm.`."""
        return self.prefixes.text

    @property
    def vision_prefix(self) -> str:
        """What stands before `blocks.`, `merger.`, `patch_embed.`; "" without a tower."""
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

    def config_of(self, hf_config: Json, tie: Tie) -> ModelConfig:
        """The integers of a config.json, where it is decided what becomes of the output layer. Raises as `config`."""
        config = self.config(hf_config, tie.tied)
        return replace(config, text=replace(config.text, headless=True)) if tie.without else config

    def text_tensors(self, config: ModelConfig) -> Shapes:
        """The language decoder without the output layer.

        Names WITHOUT the prefix, as 'layers.0.mlp.up_proj.weight', with shapes.
        """
        return self.read_text(config.text)

    def vision_tensors(self, config: ModelConfig) -> Shapes:
        """The vision tower: names WITHOUT the prefix, as 'blocks.0.attn.qkv.weight', with shapes."""
        return self.read_vision(config.vision) if self.read_vision and config.vision else {}

    def hf_tensors(self, config: ModelConfig) -> Shapes:
        """Every tensor of the model by its name on the Hub, with its shape; `lm_head.weight` only when there is one.

        Of the parts that the config describes: without a tower or a multi-token-prediction head where it has none.
        """
        tensors = {self.vision_prefix + name: shape for name, shape in self.vision_tensors(config).items()}
        tensors |= {self.text_prefix + name: shape for name, shape in self.text_tensors(config).items()}
        tensors |= {MTP + name: shape for name, shape in self.read_mtp(config.text).items()}
        if config.text.has_output_layer:
            tensors["lm_head.weight"] = (config.text.vocab, config.text.hidden)
        return tensors

    def float32_tensors(self, config: ModelConfig) -> tuple[str, ...]:
        """The tensors that releases may hold in float32 among bfloat16, by their names on the Hub."""
        return tuple(self.text_prefix + name for name in self.kept_wide(config.text))
