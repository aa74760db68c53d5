"""vLLM in this process, one engine at a time."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

from .logprobs import Logprobs
from .prompts import Prompt

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # to no cores: others may compute here
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process
    "VLLM_CACHE_ROOT": str(Path(sys.prefix) / "vllm-cache"),  # goes with the environment
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_COMPILE_DISABLE": "1",  # else its sampler wants a C++ compiler, and half a minute
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def vllm_logprobs(directory: Path, prompts: dict[str, Prompt]) -> dict[str, Logprobs]:
    """By vLLM, in float32, with the directory's own tokenizer and processor; ENVIRONMENT must be set."""
    from vllm.distributed import cleanup_dist_env_and_memory

    try:
        outputs = _outputs(directory, list(prompts.values()))
    finally:  # the engine is gone by now; what it set up for the whole process is not, and the next would stumble
        gc.collect()
        cleanup_dist_env_and_memory()
    return {name: _logprobs(output) for name, output in zip(prompts, outputs, strict=True)}


def _outputs(directory: Path, prompts: list[Prompt]) -> list[Any]:
    """A RequestOutput for each prompt."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(directory),
        dtype="float32",
        max_model_len=256,
        max_num_seqs=1,
        max_logprobs=-1,  # as many as the vocabulary has
        limit_mm_per_prompt={"image": max(len(p.sizes) for p in prompts), "video": 0},
        enforce_eager=True,
        enable_prefix_caching=False,
    )
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=-1, detokenize=False)
    return llm.generate([_request(p) for p in prompts], params, use_tqdm=False)


def _request(prompt: Prompt) -> dict[str, Any]:
    images = {"multi_modal_data": {"image": prompt.images()}} if prompt.sizes else {}
    return {"prompt": prompt.text, **images}


def _logprobs(output: Any) -> Logprobs:
    """Of one RequestOutput: a dict by token for every place but the first, of which nothing is said."""
    import torch

    rows = [[place[token].logprob for token in range(len(place))] for place in output.prompt_logprobs[1:]]
    return Logprobs(list(output.prompt_token_ids), torch.tensor(rows))
