"""In the child: megatron-core's GPTModel, of its local modules, from Megatron-LM's args."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..serving import in_full_precision
from . import plain

if TYPE_CHECKING:
    import torch

Args = dict[str, Any]

CENTRED = "apply_layernorm_1p"
"""The argument of norms that multiply by 1 + weight."""


def build(args: Args, length: int, device: str) -> Any:
    """The model, on `device`, in float32, its parameters not filled.

    Args:
        args: as Megatron-LM takes them, of a language model alone: one rank, no vision tower, no head for
            multi-token prediction.
        length: of the longest sequence.
        device: "cpu" or "cuda".
    """
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state

    in_full_precision()
    plain.without_random_numbers()
    if device == "cpu":
        plain.on_cpu()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    from megatron.core.models.gpt import GPTModel

    config = _transformer_config(args, device)
    with torch.device(device):
        gpt = GPTModel(
            config,
            _delta_nets(config) if config.experimental_attention_variant else _layers(config),
            vocab_size=args["padded_vocab_size"],
            max_sequence_length=length,
            share_embeddings_and_output_weights=not args["untie_embeddings_and_output_weights"],
            position_embedding_type=args["position_embedding_type"],
            rotary_percent=args["rotary_percent"],
            rotary_base=args["rotary_base"],
        )
    return gpt.eval()


def centre(gpt: Any, args: Args) -> None:
    """Once the parameters are filled: one is added to norms that multiply by 1 + weight.

    megatron-core's local norm has no such mode.
    """
    import torch

    if args.get(CENTRED):
        for module in gpt.modules():
            if isinstance(module, torch.nn.RMSNorm):
                module.weight.data += 1


def logits(gpt: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits [batch, length, rows] of token ids [batch, length], rows as the embedding's."""
    import torch

    length = ids.shape[1]
    positions = torch.arange(length, device=ids.device).expand_as(ids)
    masked = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)[None, None]
    with torch.no_grad():
        found: torch.Tensor = gpt(ids, positions, masked)
    return found


def logits_again(gpt: Any, ids: torch.Tensor) -> torch.Tensor | None:
    """The same as far as rounding goes, to measure its noise; None for a model without Gated DeltaNets.

    Their rule magnifies what is rounded before it. So its sums are done in another order, and every third weight is a
    last place larger: the model is of no other use afterwards.
    """
    import torch

    if not gpt.config.experimental_attention_variant:
        return None
    plain.with_short_chunks(gpt)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.view(-1)[::3].mul_(1 + 2.0**-23)
    return logits(gpt, ids)


def _transformer_config(args: Args, device: str) -> Any:
    """The fields that have an argument's name, those that have another, and no fusion: it would round otherwise."""
    import torch
    from megatron.core.transformer import TransformerConfig
    from torch.nn.functional import silu

    known = {field.name for field in fields(TransformerConfig)}
    said = {name: value for name, value in args.items() if name in known and value is not None}
    said |= {
        "layernorm_epsilon": args["norm_epsilon"],
        "gated_linear_unit": True,
        "activation_func": silu,
        "params_dtype": torch.float32,
        "use_cpu_initialization": device == "cpu",
        "perform_initialization": False,
        "attention_dropout": 0.0,
        "masked_softmax_fusion": False,
        "deterministic_mode": True,  # a Gated DeltaNet in plain torch
    }
    if args["num_experts"]:
        plain.with_local_router()
        said |= {
            "num_moe_experts": args["num_experts"],
            # None is no word of Megatron's: it does not bring the chosen experts' weights to a sum of 1.
            "moe_router_pre_softmax": args["moe_router_pre_softmax"] is not False,
            "moe_router_load_balancing_type": "none",
        }
    return TransformerConfig(**said)


def _layers(config: Any) -> Any:
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

    return get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization="RMSNorm")


def _delta_nets(config: Any) -> Any:
    """Layers of which some have a Gated DeltaNet.

    megatron-core makes them of Transformer Engine's modules, which hold the norm before a linear layer inside it. Local
    ones are put in their place, with that norm beside them.
    """
    from megatron.core.models.gpt import experimental_attention_variant_module_specs as variants
    from megatron.core.models.gpt import gpt_layer_specs

    plain.with_local_delta_net()
    provider = _provider()
    variants.TESpecProvider = gpt_layer_specs.TESpecProvider = provider
    block = variants.get_transformer_block_with_experimental_attention_variant_spec(config)
    norm = provider().layer_norm(rms_norm=True)
    for layer in block.layer_specs:
        layer.submodules.input_layernorm = norm
    return block


def _provider() -> type:
    from megatron.core.models.backends import LocalSpecProvider

    class Provider(LocalSpecProvider):  # type: ignore[misc]  # megatron-core has no types
        """Local modules where Transformer Engine's are asked for."""

        def column_parallel_layer_norm_linear(self) -> Any:
            """The linear layer alone."""
            return self.column_parallel_linear()

        def layer_norm(self, *_args: Any, **_kwargs: Any) -> Any:
            """torch's RMSNorm, which megatron-core's specs of Transformer Engine need not ask for by name."""
            return super().layer_norm(rms_norm=True)

    return Provider
