"""hf: Hugging Face names in a distributed checkpoint, as trainers on FSDP2 save them with torch's own DCP.

Only the wrappers' prefixes are gone.

Which orientation the experts have, and for Qwen2.5-VL which prefixes, is seen in the tensors themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..models.shared.config import ModelConfig
from ..models.shared.hf_dialects import Dialect, dialect_copies, read_dialect
from ..tensors.rules import Rule
from ..tensors.spec import Shape
from .layout import Layout
from .refusals import stripped


def _rules(config: ModelConfig, dialect: Dialect) -> Iterator[Rule]:
    for copy in dialect_copies(config, dialect):
        yield copy._replace(left=copy.left._replace(name=stripped(copy.left.name)))


def settle(layout: Layout, shapes: Mapping[str, Shape], config: ModelConfig) -> Layout:
    """The layout with the dialect that the tensors show.

    Raises:
        MismatchError: square experts, whose orientation nothing shows.
    """
    new = any(name.startswith("language_model.") for name in shapes)
    dialect = read_dialect(shapes, config)._replace(hf_names="new" if new else "old")
    return replace(layout, rules=lambda c, rows: _rules(c, dialect))


HF = Layout(
    name="hf",
    trainers="FSDP2 trainers, torch DCP",
    serves=lambda traits: traits.tower,
    tower="visual.",
    has=("visual.patch_embed.", "language_model.layers."),
    lacks=(),
    rules=lambda config, rows: _rules(config, Dialect("hub", "new")),
    spellings=lambda config: iter(()),
    extra_state=lambda config: iter(()),
    stacks=lambda config: (),
    settle=settle,
    writes=(),
)

HF_OLD = replace(
    HF,
    name="hf-old",
    trainers="FSDP2 trainers, torch DCP, Qwen2.5-VL's old names",
    serves=lambda traits: traits.later_prefixes is not None,
    has=("visual.patch_embed.", "layers."),
    rules=lambda config, rows: _rules(config, Dialect("hub", "old")),
)

HF_TEXT = replace(
    HF,
    name="hf-text",
    trainers="FSDP2 trainers, torch DCP, text-only models",
    serves=lambda traits: not traits.tower,
    tower="",
    has=("embed_tokens.", "layers."),
    lacks=("visual.",),
)
