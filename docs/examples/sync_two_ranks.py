"""Two ranks of a megatron-core model write their weights into a transformers model, without a gather.

    pip install torch megatron-core transformers    # beside vlconv
    python -W ignore docs/examples/sync_two_ranks.py

A tiny Qwen3 of random weights, cut by tensor parallelism over two processes (gloo, no GPU). Each asks `placements`
where its own elements belong, and writes them there; then both models are given the same tokens. The transformers
model lies in shared memory here, which stands for whatever carries weights to an inference engine.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from megatron.core.transformer import TransformerConfig
from transformers import Qwen3Config, Qwen3ForCausalLM

from vlconv.converters.live import Topology, placements, rank_at

TP, LENGTH = 2, 16
CONFIG = Qwen3Config(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=16,
    tie_word_embeddings=False,
)


def megatron_model() -> GPTModel:
    """This rank's part of the model, of random weights."""
    config = TransformerConfig(
        num_layers=CONFIG.num_hidden_layers,
        hidden_size=CONFIG.hidden_size,
        ffn_hidden_size=CONFIG.intermediate_size,
        num_attention_heads=CONFIG.num_attention_heads,
        num_query_groups=CONFIG.num_key_value_heads,
        kv_channels=CONFIG.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=CONFIG.rms_norm_eps,
        qk_layernorm=True,
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        tensor_model_parallel_size=TP,
        use_cpu_initialization=True,
        persist_layer_norm=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
    )
    torch.manual_seed(1)
    model = GPTModel(
        config,
        get_gpt_layer_local_spec(qk_layernorm=True, normalization="RMSNorm"),
        vocab_size=CONFIG.vocab_size,
        max_sequence_length=LENGTH,
        parallel_output=False,
        share_embeddings_and_output_weights=False,
        position_embedding_type="rope",
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:  # megatron-core begins with ones, which would hide a norm that went astray
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


@torch.no_grad()
def rank(number: int, meeting: str, hf: Qwen3ForCausalLM, ids: torch.Tensor, logits: torch.Tensor) -> None:
    """What each of the ranks does."""
    torch._dynamo.config.disable = True  # nothing here is worth compiling
    torch.cuda.current_device = lambda: torch.device("cpu")  # two things that megatron-core asks of a GPU
    CudaRNGStatesTracker.fork = lambda *_: nullcontext()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=TP)
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=TP, create_gloo_process_groups=False)
    model = megatron_model()

    ours, theirs, topology = dict(model.named_parameters()), hf.state_dict(), Topology(tp=TP)
    for name, listed in placements(CONFIG, None, topology, rank_at(number, TP, topology), names=ours).items():
        for placement in listed:
            if not placement.replica:
                placement.hf_box.of(theirs[placement.hf_name]).copy_(placement.local(ours[name]))

    masked = torch.ones(LENGTH, LENGTH).triu(1).bool()[None, None]
    logits.copy_(model(ids, torch.arange(LENGTH)[None], masked))
    dist.barrier()


def main() -> None:
    """Build, synchronise, compare."""
    torch.set_num_threads(1)  # a fork has no threads of its parent
    hf = Qwen3ForCausalLM(CONFIG).eval().share_memory()
    for parameter in hf.parameters():
        parameter.data.fill_(float("nan"))  # what nobody writes will show
    ids, logits = torch.randint(CONFIG.vocab_size, (1, LENGTH)), torch.empty(1, LENGTH, CONFIG.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/meeting", hf, ids, logits.share_memory_())
        torch.multiprocessing.start_processes(rank, arguments, nprocs=TP, start_method="fork")
    with torch.no_grad():
        difference = (hf(input_ids=ids).logits - logits).abs().max().item()
    print(f"largest difference between logits of up to {logits.abs().max():.2f}: {difference:.1e}")
    assert difference < 1e-5


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
