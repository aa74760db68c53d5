"""Legacy rank files: a trainer's tensors cut among tensor, pipeline and expert ranks, each rank's own saved by
torch.save.

Written after what the trainers' own converters and modules do, apart from vlconv's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .decoder import Tensors
from .places import TRAINERS
from .sizes import Sizes, sizes

ROWS = re.compile(
    r"(word_embeddings|output_layer|linear_qkv|[qkv]_proj|gate_proj|up_proj|linear_fc1|eh_proj)\.(weight|bias)$"
    r"|\.self_attention\.((in_proj|in_proj_qkvz|in_proj_ba|conv1d)\.weight|A_log|dt_bias)$"
)
COLUMNS = re.compile(r"(linear_proj|linear_fc2|self_attention\.out_proj)\.weight$")
GATED = re.compile(
    r"^(language_model\.|text_decoder\.)?(decoder|mtp)\.layers\.\d+\.(transformer_layer\.)?mlp\."
    r"(experts\.local_experts\.\d+\.|shared_experts\.)?linear_fc1\.weight$"
)
PIECE = re.compile(r"(\.self_attention\.(in_proj|conv1d)\.weight)\.(\w+)$")
"""megatron-core's Gated DeltaNet: a torch_dist file has its parts apart, a rank has its own part of each, in one."""
GATED_VISION = re.compile(r"(vision_model\.decoder|encoder\.blocks)\.layers\.\d+\.mlp\.linear_fc1\.(weight|bias)$")
EXPERT = re.compile(r"\.local_experts\.(\d+)\.(linear_fc[12]\.weight)$")
HF_TOWERS = (
    "megatron-bridge-0.3",
    "megatron-bridge-qwen2_5",
    "ms-swift",
    "roll",
    "mbridge-qwen3_5",
    "ms-swift-gdn",
    "ms-swift-gdn-decoupled",
    "ms-swift-hf-gdn",
    "slime",
)
"""Whose vision tower is Hugging Face's own, whole on every tensor-parallel rank."""
HF_DELTA_NETS = ("ms-swift-hf-gdn", "ms-swift-text", "slime", "slime-text")
"""Whose Gated DeltaNet is, likewise."""
MTP_MODULE = {"roll": "mtp_model_layer"}
"""What the layer inside the multi-token-prediction head is called by newer megatron-core; else transformer_layer."""
PROJECTOR = ("image_encoder.projector.", "vision_model.merger.", "vision_model.projection.")


class Grid(NamedTuple):
    """How a model is spread. Layers are counted as [chunk][stage]."""

    text: list[list[int]]
    vision: list[list[int]] | None = None
    """Vision blocks likewise; of one stage where the language model has more: whole on every stage. None:
    whole on the first.
    """
    tp: int = 1
    vision_tp: int = 0
    """0: as `tp`."""
    ep: int = 1

    @property
    def stages(self) -> int:
        return len(self.text[0])


def write_ranks(
    root: Path,
    name: str,
    config: dict[str, Any],
    hf: Tensors,
    grid: Grid,
    *,
    grouped: bool = False,
    views: bool = False,
    common: Any = None,
    mtp_module: str = "",
) -> Path:
    """A legacy checkpoint of a trainer.

    Args:
        root: a new folder, for `release/`, the tracker file and the trainer's side files.
        name: of the layout.
        config: config.json.
        hf: Hugging Face tensors under the Hub's names.
        grid: how the model is spread; experts are cut by `tp` too.
        grouped: experts in one module, else one module each.
        views: experts as transposed views into one storage of them all, as MindSpeed-MM's converter leaves them.
        common: what each file holds besides.
        mtp_module: what the layer in the multi-token-prediction head is called; "": as MTP_MODULE says.
    """
    s = sizes(config)
    tensors = _experts_apart(TRAINERS[name].names(s, hf), views)
    if s.tied and grid.stages > 1:
        (embedding,) = [n for n in tensors if n.endswith("embedding.word_embeddings.weight")]
        tensors[embedding.replace("embedding.word_embeddings", "output_layer")] = tensors[embedding]
    for tp in range(max(grid.tp, grid.vision_tp)):
        for stage in range(grid.stages):
            for ep in range(grid.ep):
                chunks = [
                    dict(_own(s, tensors, grid, tp, stage, ep, chunk, grouped, name)) for chunk in range(len(grid.text))
                ]
                module = mtp_module or MTP_MODULE.get(name, "transformer_layer")
                chunks = [{n.replace("transformer_layer", module): t for n, t in own.items()} for own in chunks]
                _save(root / "release" / _folder(grid, tp, stage, ep), chunks, common or {})
    for file, text in TRAINERS[name].root_files(config).items():
        (root / file).write_text(text)
    (root / "latest_checkpointed_iteration.txt").write_text("release")
    return root


def _folder(grid: Grid, tp: int, stage: int, ep: int) -> str:
    return f"mp_rank_{tp:02d}" + (f"_{stage:03d}" if grid.stages > 1 else "") + (f"_{ep:03d}" if grid.ep > 1 else "")


def _save(directory: Path, chunks: list[Tensors], common: dict[str, Any]) -> None:
    directory.mkdir(parents=True)
    named = {"model": chunks[0]} if len(chunks) == 1 else {f"model{i}": chunk for i, chunk in enumerate(chunks)}
    torch.save({**named, **common}, directory / "model_optim_rng.pt")


def _experts_apart(tensors: Tensors, views: bool) -> Tensors:
    """Experts on an axis become one tensor each, globally numbered."""
    out: Tensors = {}
    for name, t in tensors.items():
        before, _, fc = name.partition(".experts.experts.")
        out |= {f"{before}.experts.local_experts.{e}.{fc}": t[e] for e in range(len(t))} if fc else {name: t}
    if views:
        for name in [
            n for n in out if n.endswith((".local_experts.0.linear_fc1.weight", ".local_experts.0.linear_fc2.weight"))
        ]:
            each = [
                n
                for n in out
                if n.split(".local_experts.")[0] == name.split(".local_experts.")[0]
                and n.rpartition("linear_")[2] == name.rpartition("linear_")[2]
            ]
            whole = torch.stack([out[n].T for n in each])
            out |= {n: whole[e].T for e, n in enumerate(each)}
    return out


def _own(
    s: Sizes, tensors: Tensors, grid: Grid, tp: int, stage: int, ep: int, chunk: int, grouped: bool, layout: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """What one chunk of a rank holds, numbered as there."""
    pieces: dict[str, list[torch.Tensor]] = {}
    headed = any("mtp.layers." in name for name in tensors)
    for name, t in tensors.items():
        number = _here(s, name, grid, chunk, stage)
        if headed and "word_embeddings" in name and _here(s, "mtp.", grid, chunk, stage) == 0:
            number = 0  # the head embeds the next token by itself
        if number is None:
            continue
        local = re.sub(r"(decoder|blocks)\.layers\.\d+\.", rf"\1.layers.{number}.", name)
        expert = EXPERT.search(local)
        if expert:
            each = s.experts // grid.ep
            if int(expert[1]) // each != ep:
                continue
            spelled = (
                f".{expert[2]}{int(expert[1]) % each}"
                if grouped
                else f".local_experts.{int(expert[1]) % each}.{expert[2]}"
            )
            local = local[: expert.start()] + spelled
        whole = layout in HF_TOWERS and ("visual." in name or name.startswith("vision_model."))
        whole = whole or (layout in HF_DELTA_NETS and _of_delta_net(name, tensors))
        piece = PIECE.search(local)
        if piece:
            pieces.setdefault(local[: piece.end(1)], []).append(t.chunk(grid.tp)[tp % grid.tp])
        else:
            yield local, t if whole else _cut(s, name, t, grid, tp)
    yield from ((name, torch.cat(found)) for name, found in pieces.items())


def _of_delta_net(name: str, tensors: Tensors) -> bool:
    """Whether it is within the same attention as an A_log."""
    before, attention, _ = name.partition("self_attention.")
    return bool(attention) and any(f"{before}{attention}{x}A_log" in tensors for x in ("", "linear_attn."))


def _here(s: Sizes, name: str, grid: Grid, chunk: int, stage: int) -> int | None:
    """The tensor's layer number in that chunk of that stage, 0 for what is in no layer; None if it is not there."""
    vision = "vis" in name or name.startswith("image_encoder.")
    layers = (
        (grid.vision or [[s.depth, *[0] * (grid.stages - 1)], *[[0] * grid.stages] * (len(grid.text) - 1)])
        if vision
        else grid.text
    )
    flat = [n for row in layers for n in row]
    here = chunk * len(layers[0]) + stage % len(layers[0])
    numbered = re.search(r"(decoder|blocks)\.layers\.(\d+)\.", name)
    if numbered:
        number = int(numbered[2]) - sum(flat[:here])
        return number if 0 <= number < flat[here] else None
    some = [i for i, n in enumerate(flat) if n]
    ends = ("decoder.final_layernorm.", "output_layer.", "mtp.", *PROJECTOR)
    return 0 if here == (some[-1] if any(end in name for end in ends) else some[0]) else None


def _cut(s: Sizes, name: str, t: torch.Tensor, grid: Grid, tp: int) -> torch.Tensor:
    """A rank's part. Those of a tower that is cut less often repeat."""
    ways = grid.vision_tp or grid.tp if name.startswith("image_encoder.") else grid.tp
    part = tp % ways
    if ways == 1:
        return t
    if GATED.search(name) or (s.kind == "qwen2_5_vl" and GATED_VISION.search(name)):
        return torch.cat([half.chunk(ways)[part] for half in t.chunk(2)])
    if ROWS.search(name):
        return t.chunk(ways)[part].clone()
    return t.chunk(ways, dim=1)[part].clone() if COLUMNS.search(name) else t
