"""What config.json promises and weights have to keep: the tie of the embeddings, the multi-token-prediction head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...checkpoint.absent.mtp import states_head
from ...errors import SourceError, shown
from ...formats import safetensors
from ...formats.sums.replicas import unequal
from ...models.shared.config import ModelConfig
from ...models.shared.model import MTP
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .held import Held, finding
from .names import MADE_UP, Expected
from .reference import Like


def tell_tie(held: Held, directory: Path, hf_config: Mapping[str, Any], like: Like) -> None:
    """Whether the output layer is there, and is what config.json says of it.

    Args:
        held: told.
        directory: that holds the files.
        hf_config: its config.json.
        like: the reference.
    """
    output = next((name for name in held.specs if name.endswith(OUTPUT_LAYER)), "")
    embedding = next((name for name in held.specs if name.endswith(EMBEDDING)), "")
    said = _stated(hf_config)
    for place, value in said.items():
        if not isinstance(value, bool):
            what = f"{place} of config.json is {shown(value, 80)}, not true or false"
            held.wrong("tie", what, "transformers takes any such value for true or for false")
    said = {place: value for place, value in said.items() if isinstance(value, bool)}
    if len(set(said.values())) > 1:
        words = ", ".join(f"{place} is {str(value).lower()}" for place, value in said.items())
        held.wrong(
            "tie",
            f"config.json says two things: {words}",
            "transformers 5 reads the first, transformers 4.57 the second: one of them makes up or drops lm_head",
        )
    tied = next(iter(said.values()), None)
    if tied is None:
        load = "versions of transformers take it for true or for false"
        held.wrong("tie", "config.json does not say tie_word_embeddings", load)
    elif tied != like.config.text.tied and not like.config.text.headless:
        yes, no = str(tied).lower(), str(not tied).lower()
        there = "is in the files" if output else "is in no file"
        what = f"tie_word_embeddings is {yes}, {no} in the reference; lm_head.weight {there}"
        load = "it loads, as another model" if output else MADE_UP
        held.wrong("tie", what, "the embedding serves as output layer" if tied else load)
    if output in held.lost or "lm_head.weight" in held.lost:
        return
    if not output and like.config.text.has_output_layer and not tied:
        held.wrong("tie", "missing: lm_head.weight, in a model that is not tied", MADE_UP, ["lm_head.weight"])
    if output and embedding and tied:
        _tell_copy(held, directory, embedding, output)


def _stated(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """tie_word_embeddings by its place, the one that decides in transformers 5 first."""
    text = hf_config.get("text_config")
    sections = {"": hf_config, "text_config.": text if isinstance(text, Mapping) else {}}
    name = "tie_word_embeddings"
    found = {f"{place}{name}": section.get(name) for place, section in sections.items()}
    return {place: value for place, value in found.items() if value is not None}


def _tell_copy(held: Held, directory: Path, embedding: str, output: str) -> None:
    """A tied model's output layer that is in the files all the same."""
    ours, theirs = held.specs[embedding], held.specs[output]
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        how = f"{list(ours.shape)} {ours.dtype} and {list(theirs.shape)} {theirs.dtype}"
    else:
        try:
            reader = safetensors.open_files_of([directory / held.places[name] for name in (embedding, output)])
            how = unequal(reader, embedding, reader, output)
        except SourceError:  # which is a finding already
            return
    if how:
        held.wrong(
            "tie",
            f"the model is tied, and {shown(output)} is no copy of its embedding: {how}",
            "transformers 5 takes it, transformers 4.57 and vLLM drop it: two models",
            [output],
        )
    else:
        what = f"the model is tied, and {shown(output)} is there all the same, a copy of its embedding"
        held.findings.append(finding("note", "tie", what, "it is dropped, or the same", [output]))


def tell_head(held: Held, hf_config: Mapping[str, Any], config: ModelConfig | None, want: Expected, like: Like) -> None:
    """A multi-token-prediction head that is promised and missing, there and not promised, or lost.

    Args:
        held: told.
        hf_config: config.json.
        config: what that describes; None: it cannot be read.
        want: what is to be there.
        like: the reference.
    """
    here = [name for name in held.specs if name.startswith(MTP)]
    promised = config.text.mtp if config else 0
    whole = {name for name in want.shapes if name.startswith(MTP)} if here else set()
    missing = sorted(whole - held.specs.keys() - held.lost)
    if missing:
        held.wrong("mtp", f"missing of the multi-token-prediction head: {_few(missing)}", MADE_UP, missing)
    if promised and not here and not any(name.startswith(MTP) for name in held.lost):
        held.wrong(
            "mtp",
            "config.json promises a multi-token-prediction head (mtp_num_hidden_layers) that is in no file",
            "vLLM fails at its start where it is to use the head; without it the model is whole",
        )
    elif not here and like.config.text.mtp:
        what = "the reference has a multi-token-prediction head, and this model none"
        held.findings.append(finding("note", "mtp", what, "the model is whole; nothing can speculate with it", []))
    if here and not promised and (states_head(hf_config) or not like.model.traits.mtp):
        what = f"{len(here)} tensors of a multi-token-prediction head are there, and config.json promises none"
        held.findings.append(finding("note", "mtp", what, "transformers and vLLM leave it unused", here))
    strange = [name for name in here if like.model.traits.mtp and name not in want.shapes]
    if strange:
        what = f"not expected in the multi-token-prediction head: {_few(strange)}"
        held.findings.append(finding("note", "mtp", what, "it is left unused", strange))


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:3])) + f" and {len(names) - 3} more" * (len(names) > 3)
