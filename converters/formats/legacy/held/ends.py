"""Where a pipeline begins and ends: stages whose folders were exchanged read as well as any, and are another model.

Middle stages all hold the same names; of them only what their args state can tell (agreement.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ....errors import CorruptError, shown
from ....tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from ..layers import State

EMBEDDINGS = tuple(f"embedding.{name}" for name in EMBEDDING)
LAYERS = "decoder.layers."
HEADS = "mtp.layers."
"""Of multi-token prediction: on the last stage, which then also holds a copy of the embedding."""
HINT = "Stages lie in each other's folders: copy each rank's own file again from where it was saved."

Held = dict[str, dict[tuple[int, int], str]]
"""Path of a language model -> (chunk, stage) that holds some of it, in the model's order -> the folder."""


def check_ends(states: Iterable[State]) -> None:
    """No layer of a decoder comes before its embedding, and none behind its output layer or its prediction heads.

    Args:
        states: every chunk of every rank.

    Raises:
        CorruptError: one does; names both folders.
    """
    begins: Held = {}
    layers: Held = {}
    ends: Held = {}
    heads: Held = {}
    for state in states:
        for name in state.names:
            for held, path in ((begins, _before(name, EMBEDDINGS)), (ends, _before(name, OUTPUT_LAYER))):
                if path is not None:
                    _hold(held, path, state)
            for held, module in ((layers, LAYERS), (heads, HEADS)):
                path, found, _ = name.partition(module)
                if found:
                    _hold(held, path, state)
    for path, stages in layers.items():
        first, last = min(stages), max(stages)
        if path in begins and first < (begin := min(begins[path])):
            raise _wrong(stages[first], "before its embedding", begins[path][begin], path)
        for held, what in ((ends, "output layer"), (heads, "multi-token-prediction head")):
            if path in held and last > (end := min(held[path])):
                raise _wrong(stages[last], f"behind its {what}", held[path][end], path)


def _before(name: str, ends: tuple[str, ...]) -> str | None:
    """What stands before a name's end, where it is one of those and whole."""
    path = next((name.removesuffix(end) for end in ends if name.endswith(end)), None)
    return path if path is not None and (not path or path.endswith(".")) else None


def _hold(held: Held, path: str, state: State) -> None:
    held.setdefault(path, {})[state.chunk, state.stage] = Path(state.path).parent.name


def _wrong(folder: str, where: str, other: str, path: str) -> CorruptError:
    model = shown(path.rstrip(".")) or "the model"
    return CorruptError(f"{shown(folder)} holds layers of {model} {where}, which is in {shown(other)}", HINT)
