"""What planning costs, counted: calls of Python functions, which are what a large model's planning takes its time with.

Counts are the same on every machine. A chunk may cost none, so that hundreds of thousands are columns of numbers from
the child process to the proof that they tile their tensors.
"""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_shapes, write_tiny_hf
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from vlconv.converters.checkpoint.hf_side import open_hf_side
from vlconv.converters.formats.dcp.metadata import DcpMetadata
from vlconv.converters.formats.dcp.read import open_dcp
from vlconv.converters.formats.pickles import closed_unpickler, metadata_columns

LM = "language_model.decoder.layers"
FORMS = {
    "stacked": ((2, 4), f"{LM}.mlp.experts.experts.linear_fc1.weight"),
    "by layer": ((4,), f"{LM}.{{layer}}.mlp.experts.experts.linear_fc1.weight"),
    "by expert": ((), f"{LM}.{{layer}}.mlp.experts.experts.{{expert}}.linear_fc2.weight"),
}


def calls(function: Callable[[], object]) -> int:
    """How many Python functions are called."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    gc.collect()  # what it finds to call is not the function's
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def saved(form: str, cuts: int) -> Metadata:
    """Two layers of four experts, each cut in so many chunks along its rows."""
    lead, name = FORMS[form]
    tensors: dict[str, Any] = {}
    storage, at = {}, 0
    for layer in range(2):
        for expert in range(4):
            key, inside = name.format(layer=layer, expert=expert), (layer, expert)[2 - len(lead) :]
            for cut in range(cuts):
                offsets, lengths = torch.Size((*inside, cut * 2, 0)), torch.Size((*(1,) * len(lead), 2, 3))
                shape = torch.Size((*lead, cuts * 2, 3))
                empty = TensorStorageMetadata(TensorProperties(dtype=torch.bfloat16), shape, [])
                entry = tensors.setdefault(key, empty)
                entry.chunks.append(ChunkStorageMetadata(offsets, lengths))
                storage[MetadataIndex(key, offsets)] = _StorageInfo("__0_0.distcp", at, 1)
                at += 1
    return Metadata(tensors, storage_data=storage)


def tables(pickled: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    return metadata_columns.dcp(closed_unpickler.load(pickled))


@pytest.mark.parametrize("form", FORMS)
def test_chunks_of_a_checkpoint_cost_no_call(tmp_path: Path, form: str) -> None:
    counts = []
    for cuts in (50, 200):
        header, columns = tables(pickle.dumps(saved(form, cuts)))
        metadata = DcpMetadata.from_answer(header, {name: np.array(column) for name, column in columns.items()})
        (tmp_path / "__0_0.distcp").write_bytes(bytes(8 * cuts))

        def plan(metadata: DcpMetadata = metadata) -> None:
            open_dcp(tmp_path, metadata, "torch_dist").assemble({}).check_tiling()

        plan()  # imports
        counts.append(calls(plan))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("form", FORMS)
def test_chunks_of_a_checkpoint_cost_the_child_their_records_alone(form: str) -> None:
    """Three records to a chunk, each with one call that takes its state; and a block of them is checked at once."""
    few, many = (pickle.dumps(saved(form, cuts)) for cuts in (50, 50 + metadata_columns.BLOCK))
    more = 8 * metadata_columns.BLOCK
    added = calls(lambda: tables(many)) - calls(lambda: tables(few))
    assert 3 * more <= added < 3.02 * more


def test_tensors_of_a_hugging_face_model_cost_few_calls(tmp_path: Path) -> None:
    """Of experts one by one, of which a large model has tens of thousands."""
    counts, tensors = [], []
    for experts in (20, 60):
        directory, config = tmp_path / str(experts), tiny_config("qwen3_moe", text={"num_experts": experts})
        shapes = tiny_shapes(config)
        write_tiny_hf(directory, config, tensors={name: torch.zeros(shape) for name, shape in shapes.items()})
        open_hf_side(directory)  # imports
        counts.append(calls(lambda directory=directory: open_hf_side(directory)))
        tensors.append(len(shapes))
    assert (counts[1] - counts[0]) / (tensors[1] - tensors[0]) < 23
