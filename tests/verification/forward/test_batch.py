"""The batch: ordinary words, as many pieces of an image as its patches make, the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from forward import batch_of
from tiny import IDS, VOCAB, tiny_config

from vlconv.converters.models import model_for
from vlconv.converters.verification.forward.batch import AROUND, batch_for

TOWERS = ["qwen3_vl", "qwen2_5_vl", "qwen3_5"]
SPECIAL = set(IDS.values())


@pytest.mark.parametrize("model", TOWERS)
def test_images_are_whole(model: str) -> None:
    config = tiny_config(model)
    batch, vision = batch_of(config), config["vision_config"]
    assert batch.images is not None and batch.grids is not None and batch.pixels is not None
    merged = batch.grids.prod(axis=1) // vision["spatial_merge_size"] ** 2
    assert ((batch.images == IDS["image_token_id"]).sum(axis=1) == merged).all()
    channels = vision.get("in_channels", vision.get("in_chans", 3))
    values = channels * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    assert batch.pixels.shape == (batch.grids.prod(axis=1).sum(), values)
    assert batch.pixels.dtype == np.float32 and -1 <= batch.pixels.min() < -0.9 and 0.9 < batch.pixels.max() <= 1
    assert not np.array_equal(*batch.grids) and (batch.grids[:, 1:] % vision["spatial_merge_size"] == 0).all()
    assert (batch.images[:, AROUND] == IDS["vision_start_token_id"]).all()
    assert (batch.images[:, -AROUND - 1] == IDS["vision_end_token_id"]).all()


@pytest.mark.parametrize("model", [*TOWERS, "qwen3"])
def test_texts_are_of_ordinary_words(model: str) -> None:
    batch = batch_of(tiny_config(model))
    assert batch.text.max() < min(SPECIAL) and batch.text.min() >= 0
    assert len(set(batch.text.flatten())) > 60 and not np.array_equal(*batch.text)
    assert (batch.images is None) == (model == "qwen3")


def test_it_is_the_same_each_time() -> None:
    one, other = (batch_of(tiny_config("qwen3_vl")) for _ in range(2))
    for name in ("text", "images", "pixels", "grids"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_special_tokens_may_come_first() -> None:
    batch = batch_of(tiny_config("qwen3", eos_token_id=[3, 5], bos_token_id=4))
    assert not {3, 4, 5} & set(batch.text.flatten()) and batch.text.max() > 200


def of(**changes: Any) -> Any:
    config = tiny_config("qwen3_vl", **changes)
    return model_for(config).config(config), config


@pytest.mark.parametrize("other", [{"image_token_id": 288}, {"vision": {"patch_size": 8}}, {"image_token_id": VOCAB}])
def test_images_that_one_model_does_not_take_are_left_out(other: dict[str, Any]) -> None:
    assert batch_for(of(), of()).images is not None
    assert batch_for(of(), of(**other)).images is None


def test_an_image_whose_token_is_in_no_vocabulary_is_left_out() -> None:
    assert batch_for(of(image_token_id=VOCAB - 1)).images is not None
    assert batch_for(of(image_token_id=VOCAB)).images is None


def test_words_are_ordinary_to_both() -> None:
    both = batch_for(of(), of(text={"eos_token_id": 100}))
    assert both.text.max() < 100


def test_no_model_asks_what_stands_behind_an_image() -> None:
    usual = batch_for(of(), of())
    for other in ({"vision_end_token_id": 290}, {"vision_end_token_id": None}):
        found = batch_for(of(), of(**other))
        assert found.images is not None and np.array_equal(found.images, usual.images)
    found = batch_for(of(vision_end_token_id=IDS["image_token_id"]))
    assert found.images is not None and found.images.shape[1] == usual.images.shape[1] - 1


def test_one_token_for_two_marks_is_no_way_to_put_in_an_image() -> None:
    assert batch_for(of(vision_start_token_id=IDS["image_token_id"])).images is None


@pytest.mark.parametrize("ids", [[*range(VOCAB)], [-1, 2**70, True]])
def test_whatever_is_called_special_there_are_words(ids: list[int]) -> None:
    text = batch_of(tiny_config("qwen3", eos_token_id=ids)).text
    assert text.min() >= 0 and text.max() < VOCAB and len(set(text.flatten())) > 60
