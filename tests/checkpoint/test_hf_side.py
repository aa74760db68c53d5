"""A tied Hugging Face directory that holds an output layer all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters import MismatchError, hf2mcore, mcore2hf, verify
from vlconv.converters.checkpoint.hf_side import open_hf_side

EMBEDDING = "model.language_model.embed_tokens.weight"


def tied(directory: Path, head: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """A tied model with `lm_head.weight`; None: the embedding's own numbers."""
    tensors = write_tiny_hf(directory, tiny_config(tied=True))
    copy = tensors[EMBEDDING].clone() if head is None else head
    write_weights(directory, tensors | {"lm_head.weight": copy})
    return tensors


def test_a_copy_of_the_embedding_is_dropped_and_told(tmp_path: Path) -> None:
    tied(tmp_path / "hf")
    assert open_hf_side(tmp_path / "hf").copy == "lm_head.weight"
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    assert report.data["tied"] is True and report.data["dropped"] == "lm_head.weight"
    assert "bit for bit the embedding" in report.told["dropped"]
    mcore2hf(tmp_path / "mcore", tmp_path / "back")
    assert verify(tmp_path / "hf", tmp_path / "back").status == "same"


def test_what_is_no_copy_is_refused(tmp_path: Path) -> None:
    tensors = tied(tmp_path / "plain")
    other = tensors[EMBEDDING].clone()
    other[7, 3] += 1
    for name, head in (("one", other), ("shape", other[:-1].contiguous()), ("dtype", other.float())):
        tied(tmp_path / name, head)
        with pytest.raises(MismatchError, match=r"the model is tied, but lm_head\.weight is no copy") as fault:
            hf2mcore(tmp_path / name, tmp_path / "out")
        assert fault.value.what.startswith(f"{tmp_path / name / 'config.json'}: ")
        assert "take the one that was saved with these weights" in fault.value.hint
        assert "tie_word_embeddings" not in fault.value.hint  # nobody asked to make it an untied model
    assert not (tmp_path / "out").exists()


def test_an_untied_model_keeps_its_own(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf", tiny_config())
    side = open_hf_side(tmp_path / "hf")
    assert side.copy == "" and "lm_head.weight" in side.reader.specs


def test_a_tensor_without_a_name_is_not_dropped_without_a_word(tmp_path: Path) -> None:
    tensors = write_tiny_hf(tmp_path / "hf", tiny_config())
    write_weights(tmp_path / "hf", tensors | {"": torch.ones(3, dtype=torch.bfloat16)})
    with pytest.raises(MismatchError, match="1 not expected"):
        hf2mcore(tmp_path / "hf", tmp_path / "mcore")
