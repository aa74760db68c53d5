"""The process that transformers runs a model in: `python -m vlconv.converters.verification.forward.hugging_face.child`.

Everything that is set here for the sake of equal sums is set in this process alone.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ....errors import NotComparable
from ...witnesses.foreign import quiet, speaking_for
from ..serving import in_full_precision, save_logits, saying_what_takes_less, serve
from .way import ALONE, SDPA

if TYPE_CHECKING:
    from ....tensors.spec import Array

LIBRARY = "transformers"

ALIGNED = 64
"""Bytes: sums over memory that begins elsewhere may be made in another order."""

LISTED = 20
"""Names of each kind of fault that are told; their number is, too."""

HEAD = "mtp."
"""What names of a multi-token-prediction head begin with, which transformers has no module for."""


def answer(asked: dict[str, Any], stdin: IO[bytes]) -> dict[str, Any]:
    """Run a model in every way that is asked for.

    Args:
        asked: "directory"; "batch": an .npz file; "tower": whether it has one; "dtype" to compute in; "device"; "runs":
            way -> part of the batch -> the .npy file to write its logits to, float32 [sequences, tokens, vocabulary].
            Without "directory": what the device is.
        stdin: not used.

    Returns:
        "faults": kind -> [number, names] of what transformers misses in the files, or has no use for; nothing was run
        then. "attention": what it calls its own. Without "directory": "free" bytes of the device, its "name".

    Raises:
        NotComparable: transformers fails, or there is no such device.
    """
    with quiet(), speaking_for(LIBRARY, "--forward"), saying_what_takes_less():
        import torch

        _settle(torch)
        if asked["device"] == "cuda" and not torch.cuda.is_available():
            raise NotComparable(
                "torch sees no GPU here", "Leave --device out, or install a build of torch for the GPU."
            )
        if "directory" not in asked:
            return {"free": torch.cuda.mem_get_info()[0], "name": torch.cuda.get_device_name()}
        model, faults = _load(asked)
        if not faults:
            _run(model.eval().to(asked["device"]), asked)
    return {"faults": {kind: [len(names), names[:LISTED]] for kind, names in faults.items()}}


def _settle(torch: Any) -> None:
    """Sums in full precision, and in the same order each time."""
    in_full_precision()
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def _load(asked: dict[str, Any]) -> tuple[Any, dict[str, list[str]]]:
    """The model on the CPU, and what does not fit of the files."""
    import torch
    import transformers

    log: Any = transformers.utils.logging
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    library: Any = transformers
    kind = library.AutoModelForImageTextToText if asked["tower"] else library.AutoModelForCausalLM
    model, info = kind.from_pretrained(
        asked["directory"],
        dtype=getattr(torch, asked["dtype"]),
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.data_ptr() % ALIGNED:
            tensor.data = tensor.data.clone()
    found = {what: sorted(map(str, names)) for what, names in info.items()}
    found["unexpected_keys"] = [name for name in found.get("unexpected_keys", []) if not name.startswith(HEAD)]
    return model, {what: names for what, names in found.items() if names}


def _run(model: Any, asked: dict[str, Any]) -> None:
    import numpy as np
    import torch

    batch = np.load(asked["batch"])
    takes = inspect.signature(model.forward).parameters
    for way, files in asked["runs"].items():
        if way == SDPA:
            model.set_attn_implementation("sdpa")
        for part, path in files.items():
            rows = len(batch[part])
            groups = [[row] for row in range(rows)] if way == ALONE else [[*range(rows)]]
            made = []
            for group in groups:
                arrays = _inputs(batch, part, group).items()
                inputs = {n: torch.from_numpy(array).clone().to(asked["device"]) for n, array in arrays}  # ALIGNED
                with torch.inference_mode():
                    found = model(**{n: tensor for n, tensor in inputs.items() if n in takes}, use_cache=False)
                made.append(found.logits.float().cpu().numpy())
            save_logits(Path(path), np.concatenate(made))
        if way == SDPA:
            model.set_attn_implementation("eager")


def _inputs(batch: Any, part: str, rows: list[int]) -> dict[str, Array]:
    """The arguments of some sequences of a part."""
    import numpy as np

    ids = batch[part][rows]
    found = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if part == "text":
        return found
    patches = batch["grids"].prod(axis=1)
    ends = patches.cumsum()
    pixels = [batch["pixels"][ends[row] - patches[row] : ends[row]] for row in rows]
    return found | {
        "pixel_values": np.concatenate(pixels),
        "image_grid_thw": batch["grids"][rows],
        "mm_token_type_ids": (ids == batch["image_id"]).astype(np.int64),  # transformers 4.57 has no such argument
    }


if __name__ == "__main__":
    serve(answer)
