"""Stand-ins for Transformer Engine's modules: the same parameters under the same names, the same byte entries, plain
torch inside.

megatron-core's wrappers of Transformer Engine exist only where that library (CUDA only) is installed. What decides a
checkpoint is which parameters a module
holds, along which axis each is cut, and that megatron-core's own code makes the sharded entries; that is all these
modules reproduce. `Provider` goes where
megatron-core's specs look for Transformer Engine's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from megatron.core.dist_checkpointing.utils import replace_prefix_for_sharding
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import SequentialMLP, TEGroupedMLP
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch.nn import Parameter
from torch.nn.functional import layer_norm, rms_norm


class ExtraState:
    """The byte entry of a Transformer Engine (>= 2) module that does no fp8: an empty uint8 tensor."""

    def get_extra_state(self) -> torch.Tensor:
        """What the module stores."""
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Takes nothing else than it stores, as a fp8-less Transformer Engine does."""
        if state is not None and state.numel():
            raise ValueError("a stand-in holds no fp8 state")


def _normalise(config: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if config.layernorm_zero_centered_gamma:
        weight = weight + 1
    if config.normalization == "RMSNorm":
        return rms_norm(hidden, weight.shape, weight, config.layernorm_epsilon)
    return layer_norm(hidden, weight.shape, weight, bias, config.layernorm_epsilon)


class Norm(ExtraState, torch.nn.Module):
    """TENorm: RMSNorm, or LayerNorm with bias."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.config = config
        self.weight = Parameter(torch.empty(hidden_size, dtype=config.params_dtype))
        biased = config.normalization == "LayerNorm"
        self.register_parameter(
            "bias", Parameter(torch.empty(hidden_size, dtype=config.params_dtype)) if biased else None
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The norm over the last axis."""
        return _normalise(self.config, hidden, self.weight, self.bias)


class ColumnLinear(ExtraState, ColumnParallelLinear):
    """TEColumnParallelLinear."""


class RowLinear(ExtraState, RowParallelLinear):
    """TERowParallelLinear."""


class NormColumnLinear(ColumnLinear):
    """TELayerNormColumnParallelLinear: the norm in front of a linear layer lives inside it."""

    def __init__(self, input_size: int, output_size: int, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, **kwargs)
        self.layer_norm_weight = Parameter(torch.empty(input_size, dtype=self.config.params_dtype))
        if self.config.normalization == "LayerNorm":
            self.layer_norm_bias = Parameter(torch.empty(input_size, dtype=self.config.params_dtype))

    def forward(self, input_: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Norm, then linear."""
        return super().forward(
            _normalise(self.config, input_, self.layer_norm_weight, getattr(self, "layer_norm_bias", None)),
            *args,
            **kwargs,
        )


class CoreAttention(ExtraState, DotProductAttention):
    """TEDotProductAttention:
    has a byte entry in a plain state dict, none in a sharded one (the parent's code), and may miss it on loading.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_post_hook(_forgive_extra_state)


def _forgive_extra_state(_module: torch.nn.Module, keys: Any) -> None:
    for missing in [key for key in keys.missing_keys if key.endswith("core_attention._extra_state")]:
        keys.missing_keys.remove(missing)


class _GroupedLinear(ExtraState, torch.nn.Module):
    """TEGroupedLinear: the local experts' weights as weight0, weight1, … of one module."""

    axis: int
    """The axis that expert tensor parallelism cuts."""

    def __init__(
        self, num_gemms: int, input_size: int, output_size: int, *, config: Any, pg_collection: Any, **_ignored: Any
    ) -> None:
        super().__init__()
        self.groups = pg_collection
        self.count = num_gemms
        shape = [output_size, input_size]
        shape[self.axis] //= pg_collection.expt_tp.size()
        for index in range(num_gemms):
            self.register_parameter(f"weight{index}", Parameter(torch.empty(shape, dtype=config.params_dtype)))
        self._register_load_state_dict_pre_hook(self._merge_extra_states)

    def _merge_extra_states(self, state_dict: dict[str, Any], prefix: str, *_ignored: Any) -> None:
        """A sharded state dict has a byte entry for each expert, the module only one."""
        for index in range(1, self.count):
            state_dict.pop(f"{prefix}_extra_state{index}", None)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: Any = None
    ) -> dict[str, Any]:
        """One entry for each local expert:
        stacked on an axis after the layers', or under a key of its own in the singleton form.
        """
        entries = {}
        for index in range(self.count):
            expert = self.groups.ep.rank() * self.count + index
            offsets, key = (
                (*sharded_offsets, (len(sharded_offsets), expert, self.groups.ep.size() * self.count)),
                prefix,
            )
            if metadata.get("singleton_local_shards"):
                offsets, key = sharded_offsets, f"{expert}.{prefix}"
            own = {"weight": getattr(self, f"weight{index}"), "_extra_state": self.get_extra_state()}
            made = make_sharded_tensors_for_checkpoint(
                own,
                "",
                {"weight": self.axis},
                offsets,
                tp_group=self.groups.expt_tp,
                dp_cp_group=metadata["dp_cp_group"],
            )
            replace_prefix_for_sharding(made, "", key)
            entries[f"{prefix}weight{index}"] = made["weight"]
            entries[f"{prefix}_extra_state{index or ''}"] = made["_extra_state"]
        for entry in entries.values():
            # Experts are replicated over their own data parallel group, not the model's.
            entry.replica_id = (*entry.replica_id[:2], self.groups.expt_dp.rank())
        return entries


class ColumnGroupedLinear(_GroupedLinear):
    """TEColumnParallelGroupedLinear."""

    axis = 0


class RowGroupedLinear(_GroupedLinear):
    """TERowParallelGroupedLinear."""

    axis = 1


class Provider(BackendSpecProvider):
    """Answers as megatron-core's TESpecProvider does with a recent Transformer Engine, naming the stand-ins."""

    def linear(self) -> type:
        """Never asked for in these models."""
        raise NotImplementedError

    def column_parallel_linear(self) -> type:
        """TEColumnParallelLinear."""
        return ColumnLinear

    def row_parallel_linear(self) -> type:
        """TERowParallelLinear."""
        return RowLinear

    def fuse_layernorm_and_linear(self) -> bool:
        """The norm lives inside the linear layer."""
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        """TELayerNormColumnParallelLinear."""
        return NormColumnLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False, has_residual: bool = False) -> type:
        """TENorm."""
        return Norm

    def core_attention(self) -> type:
        """TEDotProductAttention."""
        return CoreAttention

    def grouped_mlp_modules(self, grouped: bool, *legacy: bool) -> Any:
        """Experts: megatron-core's own TEGroupedMLP or SequentialMLP around stand-ins.

        0.16 asks for a legacy grouping too, and for a pair; newer ones want one thing to call.
        """
        experts: type = TEGroupedMLP if grouped else SequentialMLP
        column, row = (ColumnGroupedLinear, RowGroupedLinear) if grouped else (ColumnLinear, RowLinear)
        modules = MLPSubmodules(linear_fc1=column, linear_fc2=row)
        return (experts, modules) if legacy else partial(experts, submodules=modules)

    def activation_func(self) -> None:
        """Plain functions."""
