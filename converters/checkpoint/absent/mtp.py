"""Whether the multi-token-prediction head (MTP) goes along, is left behind, or was never there.

A config that promises one whose tensors are not there makes vLLM fail at its start, and trainers save checkpoints
without one whose config still promises it. So config and tensors are brought together here, or the conversion refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from ...errors import MismatchError, shown
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...models.shared.model import MTP

MEGATRON = "mtp.layers."
"""In the names of all tensors of such a head in a Megatron checkpoint, whatever stands before."""

FIELD = "mtp_num_hidden_layers"
"""Of config.json: how many layers it has."""

Asked = Literal["require", "carry", "drop"]
WAYS = {
    "carry": "--mtp carry takes the reference's, byte for byte and untrained",
    "drop": "--mtp drop leaves it out of config.json, too",
}


class Head(NamedTuple):
    """What becomes of the head.

    Attributes:
        config: the model to write.
        hf_config: its config.json.
        layers: of the head, in what is read; 0: none is read.
        carried: the reference's goes along.
        dropped: there is one, which stays behind.
        restated: `hf_config` is another than the one that was found, as it promised one.
    """

    config: ModelConfig
    hf_config: dict[str, Any]
    layers: int
    carried: bool = False
    dropped: bool = False
    restated: bool = False


def settle_head(
    config: ModelConfig,
    hf_config: dict[str, Any],
    names: Iterable[str],
    asked: Asked | None,
    *,
    where: str,
    whose: str,
    ways: Sequence[Asked] = ("carry", "drop"),
) -> Head:
    """What becomes of the head, by what config.json promises, what is there, and what the user wants.

    Args:
        config, hf_config: what config.json says of the model, and all of it.
        names: of all tensors that are there, with those of the head among them.
        asked: --mtp.
        where: how to call what holds the tensors: "the checkpoint".
        whose: how to call the config: "the reference's config.json".
        ways: what can be asked for where tensors are missing.

    Raises:
        MismatchError: they do not go together; names what can be asked.
    """
    names = list(names)
    here = layers_of(names)
    if asked == "drop":
        written = without_head(hf_config)
        dropped = any(MEGATRON in name or name.startswith(MTP) for name in names)
        return Head(with_layers(config, 0), written, 0, dropped=dropped, restated=written != hf_config)
    promised = config.text.mtp
    if not promised and model_of(config).traits.mtp and not states_head(hf_config):
        promised = here  # no word of it in config.json, whatever there is
        if asked == "carry" and not here:
            return Head(config, hf_config, 0, carried=True)
    if asked == "carry" and here:
        raise MismatchError(
            f"{where} holds a multi-token-prediction head itself ({here} layers)",
            "Leave --mtp carry out: its own goes along.",
        )
    if here and not promised:
        raise MismatchError(
            f"{where} holds a multi-token-prediction head, and {whose} promises none ({FIELD})",
            f"Give the right config.json, or say that it stays behind: {WAYS['drop']}.",
        )
    if promised and not here and asked == "carry":
        return Head(with_layers(config, promised), hf_config, 0, carried=True)
    if promised and not here:
        raise MismatchError(
            f"{whose} promises a multi-token-prediction head ({FIELD} is {shown(promised)}), and {where} holds none",
            f"{'; '.join(WAYS[way] for way in ways)}.",
        )
    if asked and not here:
        raise MismatchError(
            f"there is no multi-token-prediction head: {whose} promises none, and {where} holds none",
            f"Leave --mtp {asked} out.",
        )
    return Head(with_layers(config, promised), hf_config, promised)


def layers_of(names: Iterable[str]) -> int:
    """How many layers of such a head the names number."""
    return len({name.partition(MEGATRON)[2].partition(".")[0] for name in names if MEGATRON in name})


def without_head(hf_config: Any) -> Any:
    """A config.json with no such head, wherever it speaks of one; one that does not stays as it is."""
    if isinstance(hf_config, dict):
        return {key: 0 if key == FIELD else without_head(value) for key, value in hf_config.items()}
    return [without_head(value) for value in hf_config] if isinstance(hf_config, list) else hf_config


def with_layers(config: ModelConfig, layers: int) -> ModelConfig:
    """The config with so many layers of the head."""
    return replace(config, text=replace(config.text, mtp=layers))


def states_head(hf_config: Any) -> bool:
    """Whether config.json has a word for it, wherever."""
    if isinstance(hf_config, dict):
        return hf_config.get(FIELD) is not None or any(states_head(value) for value in hf_config.values())
    return isinstance(hf_config, list) and any(map(states_head, hf_config))
