"""A config.json for a checkpoint without a reference: from what it states of itself and its shapes, or from the one official release that its shapes fit.

Nothing is guessed: a fact that neither gives is named, and the conversion refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import MismatchError, ReferenceFault, shown
from ..formats.json_file import parse_json
from ..models.config import ModelConfig, TextConfig, VisionConfig
from ..models.releases import RELEASES, TOKEN_IDS, Release
from ..tensors.spec import Shape
from ..tensors.vocabulary import explain
from .facts import GEOMETRY, VISION, Facts
from .made_config import TEXT_IDS, made_config, release_facts
from .megatron_args import same, stated
from .reference import PLACES
from .shape_facts import Values, model_type, shape_facts

SHAPES = "the tensors' shapes"

RUNTIME = {
    "rope_theta": "text_config.rope_theta",
    "mrope_section": "text_config.rope_scaling.mrope_section",
    "rms_norm_eps": "text_config.rms_norm_eps",
    "experts_per_token": "text_config.num_experts_per_tok",
    "tied": "tie_word_embeddings",
    "dense_layers": "text_config.mlp_only_layers",
    "vision.fullatt_block_indexes": "vision_config.fullatt_block_indexes",
    "vision.window_size": "vision_config.window_size",
}
PATHS = {
    **{name: f"text_config.{field}" for name, field in GEOMETRY.items()},
    **{f"vision.{name}": f"vision_config.{field}" for name, field in VISION.items()},
    **RUNTIME,
}
"""Each fact's place in config.json, for messages."""


class MadeConfig(NamedTuple):
    """A config.json without a reference, and who said each of its facts."""

    hf_config: dict[str, Any]
    sources: dict[str, list[str]]  # source -> fields of config.json
    release: str = ""  # the source that is an official release, where one was needed


class _Known:
    """Facts with their sources; the first source of a fact keeps it, and later ones must agree."""

    def __init__(self) -> None:
        self.values: Values = {}
        self.sources: dict[str, str] = {}

    def add(self, facts: Mapping[str, Any], source: Callable[[str], str]) -> None:
        """Take facts in; MismatchError when one is known otherwise."""
        for name, value in facts.items():
            if name not in self.values:
                self.values[name], self.sources[name] = value, source(name)
            elif not same(self.values[name], value):
                raise MismatchError(
                    f"{PATHS.get(name, name)} is {shown(self.values[name])} by {self.sources[name]}, but {shown(value)} by {source(name)}",
                    "Pass --reference with the Hugging Face model that was trained.",
                )


def config_from_facts(
    shapes: Mapping[str, Shape],
    statements: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    dtype: str = "bfloat16",
    divisor: int | None = None,
    tie_shown: bool = True,
) -> MadeConfig:
    """A complete config.json, or an error that lists what is not known.

    Args:
        shapes: of a Megatron checkpoint: names without wrappers' prefixes, one tensor per layer, experts on a leading
            axis.
        statements: (where, values) of what the checkpoint states of itself: args, run_config, args.json,
            mca_config.json.
        dtype: of the weights.
        divisor: --make-vocab-size-divisible-by, to explain padding.
        tie_shown: whether an output layer means that it is not tied; else it may be a copy of the embedding.

    Raises:
        ReferenceFault: facts are missing; they are listed.
        MismatchError: two sources contradict each other.
    """
    statements = list(statements)
    whole = _embedded(statements)
    if whole is not None:
        return whole
    kind = model_type(shapes)
    known = _Known()
    seen = shape_facts(shapes)
    known.add(
        seen if tie_shown or seen.get("tied") else {name: value for name, value in seen.items() if name != "tied"},
        lambda _: SHAPES,
    )
    ids: dict[str, int] = {}
    for where, values in statements:
        said = _relevant(stated(values), kind)
        known.add({name: fact.value for name, fact in said.items()}, _places(said, where))
        ids |= {name: values[name] for name in (*TOKEN_IDS, *TEXT_IDS) if type(values.get(name)) is int}
    _derive(known)
    release = _fitting(kind, known.values, divisor)
    fits = f"{release.name}, the one release that fits" if release else ""
    if release:
        known.add(release_facts(release), lambda _: fits)
    _derive(known)
    _complete(kind, known)
    sources = _by_source(known, kind)
    hf_config = made_config(_config(kind, known.values), known.values, dtype)
    return MadeConfig(_with_ids(hf_config, ids), sources, fits if fits in sources else "")


def _places(said: Facts, where: str) -> Callable[[str], str]:
    """Fact -> where it is stated."""
    return lambda name: f"{said[name].place} in {where}"


def _embedded(statements: Iterable[tuple[str, Mapping[str, Any]]]) -> MadeConfig | None:
    """ROLL keeps the whole config.json as text inside its own."""
    for where, values in statements:
        text = values.get("hf_config_json")
        if isinstance(text, str) and text:
            return MadeConfig(
                parse_json(text.encode("utf-8", "surrogatepass"), f"hf_config_json in {where}"),
                {f"hf_config_json in {where}": ["all of it"]},
            )
    return None


def _relevant(said: Facts, kind: str) -> Facts:
    """What is stated, without what this model has no use for."""
    unused = {"qwen2_5_vl": ("vision.positions", "vision.deepstack")}.get(
        kind, ("vision.window_size", "vision.fullatt_block_indexes")
    )
    moe = () if kind == "qwen3_vl_moe" else ("experts", "moe_ffn", "experts_per_token", "dense_layers")
    # The FFN width of dense layers describes nothing where there are none: trainers then put the experts' there.
    ffn = ("ffn",) if kind == "qwen3_vl_moe" and not said.get("dense_layers", (None,))[0] else ()
    return {name: fact for name, fact in said.items() if name not in (*unused, *moe, *ffn)}


def _derive(known: _Known) -> None:
    """Heads from widths and the head dimension, or the head dimension from widths and heads."""
    values = known.values
    q_width, kv_width, head_dim, heads = (values.get(name) for name in ("q_width", "kv_width", "head_dim", "heads"))
    if q_width and not head_dim and heads and q_width % heads == 0:
        head_dim = q_width // heads
    if q_width and kv_width and head_dim and not (q_width % head_dim or kv_width % head_dim):
        derived = {"head_dim": head_dim, "heads": q_width // head_dim, "groups": kv_width // head_dim}
        known.add(derived, lambda _: SHAPES)
    if values.get("vision.deepstack") is None and values.get("vision.mergers") == 0:
        known.add({"vision.deepstack": []}, lambda _: SHAPES)


def _fitting(kind: str, values: Values, divisor: int | None) -> Release | None:
    """The official release with exactly these shapes."""
    for release in RELEASES:
        facts = release_facts(release) | {"vision.mergers": len(release.config.vision.deepstack)}
        facts |= {"q_width": facts["heads"] * facts["head_dim"], "kv_width": facts["groups"] * facts["head_dim"]}
        seen = {name for name in values if name in facts and name not in RUNTIME} | {
            "tied",
            "q_width",
            "kv_width",
            "vision.mergers",
        }
        if (
            release.config.model_type == kind
            and all(same(values.get(name), facts[name]) for name in seen)
            and _padded(values, facts["vocab"], divisor)
        ):
            return release
    return None


def _padded(values: Values, vocab: int, divisor: int | None) -> bool:
    try:
        explain(values.get("rows", 0), vocab, divisor, {})
    except MismatchError:
        return False
    return True


def _needed(kind: str, values: Values) -> list[str]:
    names = [
        "layers",
        "hidden",
        "heads",
        "groups",
        "head_dim",
        "vocab",
        "tied",
        "rope_theta",
        "mrope_section",
        "rms_norm_eps",
    ]
    names += [f"vision.{name}" for name in VISION if name not in ("positions", "deepstack")]
    if kind == "qwen2_5_vl":
        return [*names, "ffn", "vision.window_size", "vision.fullatt_block_indexes"]
    names += ["vision.positions", "vision.deepstack"]
    if kind == "qwen3_vl":
        return [*names, "ffn"]
    return [
        *names,
        "experts",
        "moe_ffn",
        "experts_per_token",
        "dense_layers",
        *(["ffn"] if values.get("dense_layers") else []),
    ]


def _complete(kind: str, known: _Known) -> None:
    missing = [PATHS[name] for name in _needed(kind, known.values) if name not in known.values]
    _refuse(missing)


def _refuse(missing: list[str]) -> None:
    if missing:
        raise ReferenceFault(
            f"there is no Hugging Face reference beside the checkpoint ({', '.join(PLACES)}), and it does not say itself: {', '.join(missing)}",
            "Pass --reference with the directory or the hub id of the Hugging Face model that was trained: it gives them.",
        )


def _config(kind: str, values: Values) -> ModelConfig:
    text = {name: values.get(name, 0) for name in (*GEOMETRY, "tied")} | {
        "dense_layers": frozenset(values.get("dense_layers", ()))
    }
    vision = {name: values.get(f"vision.{name}", 0) for name in VISION} | {
        "deepstack": tuple(values.get("vision.deepstack", ()))
    }
    return ModelConfig(kind, TextConfig(**text), VisionConfig(**vision))


def _with_ids(hf_config: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """Token ids as stated; else they are those of all releases, which a smaller vocabulary cannot have."""
    text = hf_config.get("text_config", hf_config)
    hf_config |= {name: value for name, value in ids.items() if name in TOKEN_IDS}
    text |= {name: value for name, value in ids.items() if name in TEXT_IDS}
    held = {name: hf_config[name] for name in TOKEN_IDS} | {name: text[name] for name in TEXT_IDS}
    _refuse([name for name, token in held.items() if token >= text["vocab_size"]])
    return hf_config


def _by_source(known: _Known, kind: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, source in known.sources.items():
        if name in PATHS:
            found.setdefault(source, []).append(PATHS[name])
    found[f"all releases of {kind}"] = ["token ids unless stated", "activations", "max_position_embeddings"]
    return found
