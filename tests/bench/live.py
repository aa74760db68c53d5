"""python -m bench.live: what vlconv.converters.live costs a trainer, on the processor and, where there is one, a GPU.

Beside it the same parameters as trainers convert them by hand: views and torch.cat, chunk and reshape for each.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from . import checkout

checkout.put_first()

import torch  # noqa: E402

from vlconv.converters.live import Rank, Topology, live_model, placements, to_hf  # noqa: E402
from vlconv.converters.models import RELEASES  # noqa: E402
from vlconv.converters.models.shared.config import ModelConfig  # noqa: E402

ROUNDS = 5
LAYERS = {"cpu": 4, "cuda": 36}
"""Layers of the 8B geometry that are converted: all of them where there is room."""

TP = 8
LARGE = Topology(tp=TP, pp=8, ep=8, etp=1, first=11, last=11)  # 94 layers: 11, six times 12, 11
Named = list[tuple[str, torch.Tensor]]


def main() -> int:
    """Prints one JSON object."""
    found: dict[str, Any] = {"torch": torch.__version__, "placements": planning()}
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        found[device] = converting(device)
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


def release(name: str) -> ModelConfig:
    """An official release's integers."""
    return next(each.config for each in RELEASES if each.name == name)


def planning() -> dict[str, Any]:
    """Seconds for the table of 235B, for placements of one rank of it, and for one rank that has all of it."""
    begin = time.perf_counter()
    model = live_model(release("Qwen3-235B-A22B"))
    model.table()
    found = {"table of 235B, s": time.perf_counter() - begin}
    cases = {"TP8 x PP8 x EP8, one rank": (LARGE, Rank(tp=3, pp=2, ep=5)), "one rank has all": (Topology(), Rank())}
    for name, (topology, rank) in cases.items():
        seconds, listed = timed(lambda: placements(model, None, topology, rank), lambda: None)  # noqa: B023
        found[f"{name}, s"] = seconds
        found[f"{name}, parameters"] = len(listed)
    return found


def timed(work: Callable[[], Any], wait: Callable[[], Any]) -> tuple[float, Any]:
    """The median of some rounds, after one that is not counted."""
    seconds, result = [], work()
    for _ in range(ROUNDS):
        wait()
        begin = time.perf_counter()
        result = work()
        wait()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), result


def converting(device: str) -> dict[str, Any]:
    """All parameters of Qwen3-8B's layers, one by one, vlconv's way and by hand; the results are the same."""
    config = release("Qwen3-8B")
    model = live_model(config)
    names = [n for n in model.table().mcore if ".layers." not in n or int(n.split(".")[2]) < LAYERS[device]]
    state = {n: torch.randn(model.table().mcore[n], device=device).bfloat16() for n in names}
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    ours, converted = timed(lambda: [pair for n, t in state.items() for pair in to_hf(model, n, t)], wait)
    theirs, by_hand = timed(lambda: [pair for n, t in state.items() for pair in hand_made(config, n, t)], wait)
    assert converted and all(torch.equal(t, dict(by_hand)[n]) for n, t in converted)
    shared = {t.untyped_storage().data_ptr() for t in state.values()}
    views = [t for _, t in converted if t.untyped_storage().data_ptr() in shared]
    nbytes = sum(t.nbytes for _, t in converted)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "parameters": len(state),
        "GB": nbytes / 1e9,
        "vlconv, s": ours,
        "vlconv, us a parameter": 1e6 * ours / len(state),
        "by hand, s": theirs,
        "by hand, us a parameter": 1e6 * theirs / len(state),
        "views": len(views),
        "tensors": len(converted),
        "bytes not copied": sum(t.nbytes for t in views) / nbytes,
    }


def hand_made(config: ModelConfig, name: str, tensor: torch.Tensor) -> Named:
    """A dense decoder's parameter, converted as a trainer does it: TP shards are joined, then split and renamed."""
    c = config.text
    if ".layers." not in name:
        hf = {"embedding": "model.embed_tokens", "output_layer": "lm_head", "decoder": "model.norm"}
        return [(f"{hf[name.split('.')[0]]}.weight", tensor)]
    _, _, layer, rest = name.split(".", 3)
    h = f"model.layers.{layer}"
    if rest == "self_attention.linear_qkv.weight":
        r = c.heads // c.groups
        grouped = tensor.view(c.groups, -1, c.head_dim, c.hidden)
        q, k, v = torch.split(grouped, [r, 1, 1], dim=1)
        parts = {"q": q, "k": k, "v": v}
        return [
            (f"{h}.self_attn.{x}_proj.weight", part.reshape(-1, c.hidden).contiguous()) for x, part in parts.items()
        ]
    if rest == "mlp.linear_fc1.weight":
        gate, up = tensor.chunk(2, dim=0)
        return [(f"{h}.mlp.gate_proj.weight", gate), (f"{h}.mlp.up_proj.weight", up)]
    renamed = {
        "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
        "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
        "self_attention.q_layernorm.weight": "self_attn.q_norm.weight",
        "self_attention.k_layernorm.weight": "self_attn.k_norm.weight",
        "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight",
        "mlp.linear_fc2.weight": "mlp.down_proj.weight",
    }
    return [(f"{h}.{renamed[rest]}", tensor)]


if __name__ == "__main__":
    sys.exit(main())
