"""The two tensors with a row per token, and vocabulary padding.

Rows that Megatron adds so that they divide among ranks.

Padding is cut only when something explains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import MismatchError

EMBEDDING = ("word_embeddings.weight", "embed_tokens.weight")
OUTPUT_LAYER = ("output_layer.weight", "lm_head.weight")
"""How the names of the embedding and of the output layer end, in Megatron and in Hugging Face."""

MOST_RANKS = 64
"""Tensor-parallel sizes that are tried as an explanation."""

DIVISOR = 128
"""Megatron-LM's default of --make-vocab-size-divisible-by."""


def padded(vocab: int, divisor: int) -> int:
    """`vocab` rounded up to a multiple of `divisor`."""
    return -(-vocab // divisor) * divisor


def padded_rows(vocab: int, divisor: int | None, tp: int) -> int:
    """Rows of an embedding among `tp` ranks: padded to a multiple of divisor x tp where there is a divisor.

    Raises:
        MismatchError: without padding they do not divide among the ranks.
    """
    rows = padded(vocab, divisor * tp) if divisor else vocab
    if rows % tp:
        raise MismatchError(
            f"a vocabulary of {rows} rows does not divide by tensor parallel size {tp}",
            "Give --make-vocab-size-divisible-by N, as the trainer has it: it pads to a multiple of N x TP.",
        )
    return rows


def explain(rows: int, vocab: int, divisor: int | None, stated: Mapping[str, Any]) -> str:
    """Why an embedding of `rows` rows belongs to a vocabulary of `vocab`.

    Args:
        rows: rows of the embedding in the checkpoint.
        vocab: vocab_size of the config.
        divisor: what the user gave as --make-vocab-size-divisible-by.
        stated: the checkpoint's own args; empty when it has none.

    Returns:
        a phrase for the summary; "" when there is no padding.

    Raises:
        MismatchError: nothing explains it, or the checkpoint states another number of rows. Whether it states
            another vocabulary is judged with its other facts (checkpoint/consistency.py).
    """
    own, own_rows = _number(stated, "vocab_size"), _number(stated, "padded_vocab_size")
    if own_rows is not None and own_rows != rows:
        raise MismatchError(
            f"the checkpoint's args state padded_vocab_size {own_rows}, its embedding has {rows} rows",
            "The checkpoint contradicts itself.",
        )
    if rows == vocab:
        return ""
    if rows > vocab and own == vocab and own_rows is not None:
        return f"the checkpoint's args state vocab_size {own} and padded_vocab_size {own_rows}"
    if rows > vocab:
        for base, whose in ((DIVISOR, "Megatron-LM's padding"), (divisor, "--make-vocab-size-divisible-by")):
            for ranks in range(1, MOST_RANKS + 1) if base else ():
                if padded(vocab, (base or 1) * ranks) == rows:
                    return f"{whose}: {vocab} rounded up to a multiple of {base}" + (f" x {ranks}" if ranks > 1 else "")
    raise MismatchError(
        f"the embedding has {rows} rows, config.json's vocab_size is {vocab}, and no usual padding explains "
        "the difference",
        "Give the right --reference, or --make-vocab-size-divisible-by N as the trainer had it.",
    )


def _number(stated: Mapping[str, Any], name: str) -> int | None:
    value = stated.get(name)
    return value if type(value) is int else None
