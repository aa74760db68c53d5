"""megatron-core's own model computes the logits of a Megatron checkpoint's language model, in a process of its own.

The process is handed the tensors as the files hold them, under the names that they have there: no table stands between
a file and megatron-core. It opens no file of the checkpoint itself, so nothing of it is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ....checkpoint.mcore_side import McoreSide
from ....errors import shown
from ....tensors.dtypes import storage
from ..child import NO_GPU, run_child
from .model import LIBRARY, args, boxes, language_config, rounded_by_converting, tensors

if TYPE_CHECKING:
    from ....tensors.spec import Array

CHILD = f"{__package__}.child"


def run_megatron(side: McoreSide, ids: Array, logits: Path, layers: int | None = None, device: str = "cpu") -> str:
    """Let megatron-core compute logits in float32.

    Args:
        side: of which `why_not` says nothing.
        ids: token ids [batch, length], int64.
        logits: a .npy file to make: float32 [batch, length, vocabulary], without padding rows. Of a model with Gated
            DeltaNets `again_of` it is made, too, computed in another order.
        layers: how many of the first ones; None: all.
        device: "cpu" or "cuda".

    Returns:
        what has computed, in words: "megatron-core 0.16.1, its local modules".

    Raises:
        NotComparable: megatron-core cannot do it, with its words.
        CorruptError: the files cannot be read.
    """
    config = language_config(side, layers)
    rounded = rounded_by_converting(side, layers)
    request = {
        "args": args(side, layers),
        "text": side.layout.text,
        "rounded": rounded,
        "spellings": dict(side.layout.spellings(side.config)),
        "vocabulary": config.text.vocab,
        "ids": ids.tolist(),
        "logits": str(logits),
        "again": str(again_of(logits)),
        "device": device,
    }

    def feed(stdin: IO[bytes]) -> None:
        stdin.write(json.dumps(request).encode() + b"\n")
        _hand_over(side, layers, stdin)

    answer = run_child(CHILD, feed, does=f"runs {LIBRARY}", environment=NO_GPU if device == "cpu" else {})
    also = ", output norms of Gated DeltaNets rounded as converting rounds them" if rounded else ""
    return f"{LIBRARY} {shown(answer['version'])}, its local modules{also}"


def again_of(logits: Path) -> Path:
    """The file of the same logits, computed in another order."""
    return logits.with_name(f"again-{logits.name}")


def _hand_over(side: McoreSide, layers: int | None, stdin: IO[bytes]) -> None:
    """For each box a line that says what it is, and its bytes; at the end an empty line."""
    import numpy as np

    for name, spec in tensors(side, layers).items():
        for expert, box in boxes(spec):
            array = np.empty(box.lengths, storage(spec.dtype))
            side.reader.read_into(box, array)
            shape = spec.shape if expert is None else spec.shape[1:]
            line = {"name": name, "expert": expert, "dtype": spec.dtype, "shape": shape, "nbytes": array.nbytes}
            stdin.write(json.dumps(line).encode() + b"\n")
            stdin.write(memoryview(array.reshape(-1)).cast("B"))
    stdin.write(b"\n")
