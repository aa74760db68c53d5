"""What is said of the model of an opened side: its sizes, whether it is tied, how its names are spelled."""

from __future__ import annotations

from dataclasses import fields

from ..errors import shown
from ..models import model_of, release_of
from ..models.shared.config import ModelConfig, TextConfig, VisionConfig
from ..models.shared.fields import Tie
from ..models.shared.hf_dialects import Dialect
from ..report import Report


def describe_dialect(report: Report, config: ModelConfig, dialect: Dialect) -> None:
    """How the Hugging Face side spells what can be spelled several ways."""
    if config.text.experts:
        report.fact("experts", dialect.experts, brief="", experts_form=dialect.experts)
    if model_of(config).traits.later_prefixes:
        report.fact("hf_names", dialect.hf_names, brief="", hf_names=dialect.hf_names)


def describe_model(report: Report, config: ModelConfig) -> None:
    """Which model it is, how large, and which official release has these sizes."""
    t, v = config.text, config.vision
    moe = f", {t.experts} experts of {t.moe_ffn}" if t.experts else ""
    tower = f"; vision {v.depth} blocks of {v.hidden}" if v else ""
    head = f"; {t.mtp} layers of multi-token prediction" if t.mtp else ""
    text = (
        f"{config.model_type}: {t.layers} layers of {t.hidden}, {t.heads}/{t.groups} heads{moe}, vocabulary {t.vocab}"
        f"{head}{tower}"
    )
    release = release_of(config)
    report.fact(
        "model",
        text,
        model_type=config.model_type,
        release=release.name if release else None,
        sizes={"text": _numbers(t), "vision": _numbers(v) if v else None},
    )


def _numbers(part: TextConfig | VisionConfig) -> dict[str, int]:
    """The integers of a part of the model, by name."""
    found = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: value for name, value in found.items() if type(value) is int}


def describe_tie(report: Report, config: ModelConfig, tie: Tie) -> None:
    """Whether embedding and output layer are one tensor, and what says so."""
    report.fact(
        "embeddings",
        f"{'tied' if config.text.tied else 'not tied'}, by {tie.said}"
        + (f"; without an output layer, by {shown(tie.without)}" if tie.without else ""),
        brief=None if tie.without else "tied" if config.text.tied else "not tied",
        tied=config.text.tied,
        tie_because=tie.said,
        output_layer=not tie.without,
    )
