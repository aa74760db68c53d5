"""Vocabulary padding is cut only when something explains it."""

from __future__ import annotations

import pytest

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.vocabulary import explain, padded


def refused(*args):
    with pytest.raises(MismatchError) as caught:
        explain(*args)
    return caught.value


@pytest.mark.parametrize("vocab", [1, 127, 128, 129, 300, 151936])
@pytest.mark.parametrize("divisor", [1, 2, 128, 1000])
def test_padded(vocab, divisor):
    rows = padded(vocab, divisor)
    assert rows % divisor == 0 and vocab <= rows < vocab + divisor


@pytest.mark.parametrize(("vocab", "divisor"), [(300, None), (300, 7), (300, 100), (1000, 3), (127, None)])
def test_exactly_what_some_number_of_ranks_gives(vocab, divisor):
    """By brute force over every possible number of rows."""
    usual = {-(-vocab // (128 * k)) * 128 * k for k in range(1, 65)}
    asked = {-(-vocab // (divisor * k)) * divisor * k for k in range(1, 65)} if divisor else set()
    for rows in range(vocab + 1, 128 * 66):
        if rows in usual:
            assert explain(rows, vocab, divisor, {}).startswith(
                f"Megatron-LM's padding: {vocab} rounded up to a multiple of 128"
            )
        elif rows in asked:
            assert explain(rows, vocab, divisor, {}).startswith(
                f"--make-vocab-size-divisible-by: {vocab} rounded up to a multiple of {divisor}"
            )
        else:
            refused(rows, vocab, divisor, {})


def test_the_smallest_number_of_ranks_is_named():
    assert explain(384, 300, None, {}) == "Megatron-LM's padding: 300 rounded up to a multiple of 128"
    assert explain(512, 300, None, {}) == "Megatron-LM's padding: 300 rounded up to a multiple of 128 x 2"


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"vocab_size": 300},
        {"vocab_size": 300, "padded_vocab_size": 300},
        {"vocab_size": None, "padded_vocab_size": None},
    ],
)
def test_no_padding(stated):
    assert explain(300, 300, None, stated) == ""


def test_the_checkpoints_own_word():
    assert (
        explain(311, 300, None, {"vocab_size": 300, "padded_vocab_size": 311})
        == "the checkpoint's args state vocab_size 300 and padded_vocab_size 311"
    )


@pytest.mark.parametrize(
    "stated",
    [
        {"padded_vocab_size": 311},
        {"vocab_size": 300},
        {"vocab_size": 300, "padded_vocab_size": None},
        {"vocab_size": True},
        {"vocab_size": "300"},
    ],
)
def test_half_a_word_explains_nothing(stated):
    refused(311, 300, None, stated)


def test_what_the_checkpoint_states_must_agree():
    assert (
        refused(384, 300, None, {"padded_vocab_size": 512}).what
        == "the checkpoint's args state padded_vocab_size 512, its embedding has 384 rows"
    )


def test_another_vocabulary_is_not_judged_here():
    """Two judges of one fact: the first can be overruled by --trust-reference, a second could not."""
    assert explain(300, 300, None, {"vocab_size": 299}) == ""
    assert "Megatron-LM's padding" in explain(384, 300, None, {"vocab_size": 299, "padded_vocab_size": 384})


@pytest.mark.parametrize("rows", [299, 256, 301, 128 * 65])
def test_the_message_names_both_numbers_and_the_ways_out(rows):
    fault = refused(rows, 300, None, {})
    assert f"{rows} rows" in fault.what and "config.json's vocab_size is 300" in fault.what
    assert "--reference" in fault.hint and "--make-vocab-size-divisible-by" in fault.hint


@pytest.mark.parametrize(("ranks", "rows"), [(1, 248_320), (2, 248_320), (4, 248_320), (8, 248_832), (16, 249_856)])
def test_qwen3_5s_vocabulary_is_padded_from_eight_ranks_on(ranks: int, rows: int) -> None:
    """248,320 is 1,940 times 128."""
    assert padded(248_320, 128 * ranks) == rows
    assert bool(explain(rows, 248_320, None, {})) is (ranks > 4)
