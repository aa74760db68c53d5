"""Reading integers out of a config.json: every field named in its error, nothing filled in from a class default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import CorruptError, MismatchError, shown

Json = Mapping[str, Any]

LARGEST = 2**31
"""No dimension of a tensor is larger; a config that says so is damaged or hostile."""

MOST_LAYERS = 4096
"""Names are enumerated per layer, so their number is bounded before."""

MOST_EXPERTS = 100_000
"""In all layers together: where each has a name of its own, those are enumerated too. A release has 12,032."""


class Fields:
    """One section of a config.json and the path that leads to it."""

    def __init__(self, section: object, path: str = "") -> None:
        """Args: section: the JSON object; path: "text_config", or "" for the top level."""
        self.path = path
        if not isinstance(section, Mapping):
            raise CorruptError(
                f"config.json: {path or 'the document'} is {'missing' if section is None else 'not an object'}"
            )
        self.section: Json = section

    def place(self, name: str) -> str:
        """The full path of a field: "text_config.hidden_size"."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, *names: str) -> bool:
        """Whether any of these spellings is there and not null."""
        return any(self.section.get(name) is not None for name in names)

    def integer(self, *names: str, least: int = 1, most: int = LARGEST) -> int:
        """A required integer, under any of its spellings; those present must agree.

        Raises:
            CorruptError: missing, not an integer, out of bounds, or two spellings that disagree. The first spelling is
                the one named.
        """
        found: dict[str, int] = {}
        for name in names:
            value = self.section.get(name)
            value = _square(value) if name.endswith("patch_size") else value
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise CorruptError(
                    f"config.json: {self.place(name)} is {shown(value)}, not an integer from {least} to {most}"
                )
            found[name] = value
        if not found:
            raise CorruptError(
                f"config.json: {self.place(names[0])} is missing", "Give a complete config.json: no value is guessed."
            )
        if len(set(found.values())) > 1:
            raise CorruptError(
                "config.json contradicts itself: " + ", ".join(f"{self.place(n)} is {v}" for n, v in found.items())
            )
        return found.popitem()[1]

    def integers(self, name: str, most: int = LARGEST) -> tuple[int, ...]:
        """A list of distinct integers from 0 to below `most`; () when it is missing or null."""
        value = self.section.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or any(
            isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < most for v in value
        ):
            raise CorruptError(
                f"config.json: {self.place(name)} is {shown(value)}, not a list of integers below {most}"
            )
        if len(set(value)) != len(value):
            raise CorruptError(f"config.json: {self.place(name)} is {shown(value)}, which names an integer twice")
        return tuple(value)


def _square(value: object) -> object:
    """A patch size may be spelled [16, 16]: square patches are one integer."""
    return value[0] if isinstance(value, list) and len(value) in (1, 2) and value[0] == value[-1] else value


NONE = "; --no-output-layer says of an embedding model that it has none"


class Tie(NamedTuple):
    """Whether the output layer is the embedding, and who said so.

    Attributes:
        tied: it is.
        said: who said so.
        without: why there is none at all, though not tied; "" where there is one.
    """

    tied: bool
    said: str
    without: str = ""


def decide_tie(hf_config: Json, lm_head: bool | None = None, without: str = "") -> Tie:
    """Whether input and output embeddings are one tensor.

    The top level of the config decides, then text_config, then whether an output layer is there: transformers 5 reads
    only the first, 4.57 only
    the second for Qwen3-VL, and transformers 5 itself writes a wrong one into text_config.

    Args:
        hf_config: the whole config.json.
        lm_head: whether the weights hold an output layer; None when that is not known.
        without: why the model may have none at all; "": it may not.

    Raises:
        MismatchError: the config and the presence of an output layer contradict each other.
        CorruptError: nothing says it, or what does is not true or false.
    """
    tie = stated_tie(hf_config)
    if tie is None:
        if lm_head is None:
            raise CorruptError("config.json: tie_word_embeddings is missing", "Set it to true or false.")
        return Tie(
            not lm_head, f"{'an' if lm_head else 'no'} output layer among the weights (config.json says nothing)"
        )
    if lm_head is False and not tie.tied and without:
        return tie._replace(without=without)
    if lm_head is not None and lm_head == tie.tied:
        there = "there is an output layer of its own" if lm_head else "there is no output layer"
        raise MismatchError(
            f"{tie.said} is {str(tie.tied).lower()} in config.json, but {there} among the weights",
            f"Set tie_word_embeddings to {str(not lm_head).lower()} (at the top and in text_config) if the weights "
            f"are right{NONE if not lm_head else ''}.",
        )
    return tie


def stated_tie(hf_config: Json) -> Tie | None:
    """What config.json itself says of the tie; None where it says nothing."""
    text = hf_config.get("text_config")
    for place, section in (
        ("tie_word_embeddings", hf_config),
        ("text_config.tie_word_embeddings", text if isinstance(text, Mapping) else {}),
    ):
        value = section.get("tie_word_embeddings")
        if isinstance(value, bool):
            return Tie(value, place)
        if value is not None:
            raise CorruptError(f"config.json: {place} is {shown(value)}, not true or false")
    return None
