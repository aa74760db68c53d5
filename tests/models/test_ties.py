"""Who decides whether the output layer is the embedding."""

from __future__ import annotations

import pytest

from vlconv.converters.errors import CorruptError, MismatchError
from vlconv.converters.models.shared.fields import decide_tie


def config(top, text):
    section = {} if text is None else {"tie_word_embeddings": text}
    return {"text_config": section} | ({} if top is None else {"tie_word_embeddings": top})


@pytest.mark.parametrize(
    ("top", "text", "lm_head", "tied", "said"),
    [
        (True, True, False, True, "tie_word_embeddings"),
        (False, True, True, False, "tie_word_embeddings"),  # what transformers 5 writes for MoE
        (True, False, False, True, "tie_word_embeddings"),
        (True, None, None, True, "tie_word_embeddings"),
        (None, True, False, True, "text_config.tie_word_embeddings"),  # what 4.57 writes for Qwen2.5-VL
        (None, False, True, False, "text_config.tie_word_embeddings"),
        (None, None, True, False, "an output layer among the weights (config.json says nothing)"),
        (None, None, False, True, "no output layer among the weights (config.json says nothing)"),
    ],
)
def test_top_then_text_then_presence(top, text, lm_head, tied, said):
    assert decide_tie(config(top, text), lm_head) == (tied, said, "")


@pytest.mark.parametrize(
    ("top", "text", "lm_head"), [(True, True, True), (False, False, False), (False, True, False), (None, True, True)]
)
def test_weights_that_contradict_the_config(top, text, lm_head):
    with pytest.raises(MismatchError, match=r"tie_word_embeddings is (true|false)") as error:
        decide_tie(config(top, text), lm_head)
    assert f"to {str(not lm_head).lower()}" in error.value.hint


def test_nothing_says_it():
    with pytest.raises(CorruptError, match="tie_word_embeddings is missing"):
        decide_tie({})


def test_not_a_boolean():
    with pytest.raises(CorruptError, match=r"text_config.tie_word_embeddings is 1, not true or false"):
        decide_tie(config(None, 1), False)
