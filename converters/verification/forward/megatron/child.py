"""The process that runs megatron-core: a model is made from args, filled with the tensors that come, and run.

Asked on stdin, see run.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ....errors import NotComparable, shown
from ....formats.keys import fold
from ...witnesses.foreign import quiet, speaking_for, version
from ..serving import save_logits, saying_what_takes_less, serve
from . import gpt, plain
from .model import LIBRARY

if TYPE_CHECKING:
    import torch


HINT = "vlconv does not run this model with it: leave --forward out."


class Place(NamedTuple):
    """Which part of the checkpoint a parameter is: a tensor by its name in the layout's table, and of which expert."""

    name: str
    expert: int | None


def work(request: dict[str, Any], stdin: IO[bytes]) -> dict[str, Any]:
    """Logits into the file that is named; the answer names megatron-core's version."""
    plain.prepare()
    with _megatron_core():
        import torch

        ids = torch.tensor(request["ids"], device=request["device"])
        model = gpt.build(request["args"], ids.shape[1], request["device"])
    places = _places(model, request["text"], request["spellings"])
    own = dict(places)
    fill(places, stdin)
    gpt.centre(model, request["args"])
    for name, dtype in request["rounded"].items():
        own[Place(name, None)].copy_(own[Place(name, None)].to(getattr(torch, dtype)))
    with _megatron_core():
        logits = gpt.logits(model, ids)[..., : request["vocabulary"]]
        again = gpt.logits_again(model, ids)
    _save(logits, Path(request["logits"]))
    if again is not None:
        _save(again[..., : request["vocabulary"]], Path(request["again"]))
    return {"version": version(LIBRARY)}


@contextmanager
def _megatron_core() -> Iterator[None]:
    with quiet(), speaking_for(LIBRARY, without="--forward"), saying_what_takes_less():
        yield


def _save(logits: torch.Tensor, path: Path) -> None:
    save_logits(path, logits.float().cpu().numpy())


def _places(model: Any, text: str, spellings: dict[str, str]) -> dict[Place, torch.Tensor]:
    """The parameters, each by the part of the checkpoint that it is."""
    found = {}
    for name, parameter in model.named_parameters():
        how = fold(text + name)
        found[Place(spellings.get(how.name, how.name), how.expert)] = parameter.data
    return found


def fill(places: dict[Place, torch.Tensor], stdin: IO[bytes]) -> None:
    """Fill the parameters with the tensors that come.

    Raises:
        NotComparable: a tensor is no parameter of the model, or of another shape, or one does not come.
    """
    import torch

    while line := stdin.readline().strip():
        told = json.loads(line)
        data, place = stdin.read(told["nbytes"]), Place(told["name"], told["expert"])
        parameter = places.pop(place, None)
        if parameter is None or list(parameter.shape) != told["shape"]:
            has = "no such tensor" if parameter is None else shown(list(parameter.shape))
            raise NotComparable(
                f"{shown(place.name)} is {shown(told['shape'])} in the checkpoint; {LIBRARY}'s model has {has}", HINT
            )
        with quiet():  # torch warns that bytes cannot be written to
            numbers = torch.frombuffer(data, dtype=getattr(torch, told["dtype"]))
        parameter.copy_(numbers.view(told["shape"]))
    if places:
        raise NotComparable(f"{LIBRARY}'s model has {shown(next(iter(places)).name)}, which the checkpoint lacks", HINT)


if __name__ == "__main__":
    serve(work)
