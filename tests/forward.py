"""verify --forward with transformers in this process, which has it loaded; and what transformers makes of a directory
and a batch, asked straight away.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logits import load

from vlconv.converters.models import model_for
from vlconv.converters.verification.forward.batch import Batch, batch_for
from vlconv.converters.verification.forward.hugging_face import child, run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No process is started; gives the temporary directory, in which nothing is left afterwards."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(run, "run_child", asked_here)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of use to models of this size
    try:
        yield place
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    left = {path.name for path in place.iterdir()}
    assert not {name for name in left if not name.startswith("torchinductor")}  # which is torch's, in this process


def asked_here(module: str, feed: Any, *, does: str, environment: Any = None) -> dict[str, Any]:
    """As run_child; what is said goes through JSON there and back."""
    stdin = io.BytesIO()
    feed(stdin)
    stdin.seek(0)
    answered: dict[str, Any] = json.loads(json.dumps(child.answer(json.loads(stdin.readline()), stdin)))
    return answered


def known(family: str) -> None:
    """Skip the test where the installed transformers has no such model."""
    import transformers

    if family not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know {family}")


def batch_of(config: dict[str, Any]) -> Batch:
    """The batch of a model."""
    return batch_for((model_for(config).config(config), config))


def straight(directory: Path, part: str, layers: int | None = None) -> np.ndarray[Any, Any]:
    """Logits that transformers gives for a part of the batch, [sequences, tokens, vocabulary].

    Args:
        directory: a Hugging Face directory.
        part: "text" or "images".
        layers: those behind are taken out of the model once it is loaded.
    """
    config = json.loads((directory / "config.json").read_text())
    batch, model = batch_of(config), load(directory)
    if layers is not None:
        inner = getattr(model.model, "language_model", model.model)
        inner.layers = inner.layers[:layers]
    ids = torch.from_numpy(getattr(batch, part))
    # Without a mask transformers 4.57 takes the jumps of positions around images for the seams of packed sequences.
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if part == "images":
        inputs |= {
            "pixel_values": torch.from_numpy(batch.pixels),
            "image_grid_thw": torch.from_numpy(batch.grids),
            "mm_token_type_ids": (ids == config["image_token_id"]).int(),
        }
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model(**inputs, use_cache=False).logits.numpy()
    return found
