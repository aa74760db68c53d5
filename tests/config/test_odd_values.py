"""Any value under any key that is read of a config.json, of args or of a run_config.yaml: taken, or refused by one of
vlconv's errors.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from megatron_shapes import decoder
from run_config import run_config
from tiny import tiny_config

from vlconv.converters.checkpoint.consistency import agreed_facts, agreed_rows
from vlconv.converters.config.from_facts import config_from_facts
from vlconv.converters.config.hf_config import config_json, config_to_write
from vlconv.converters.config.reference import Reference
from vlconv.converters.config.run_config import run_config_yaml
from vlconv.converters.config.written_args import args_to_write
from vlconv.converters.errors import VlconvError
from vlconv.converters.formats.directory.statements import Stated
from vlconv.converters.formats.json_file import parse_json
from vlconv.converters.formats.pickles.plain_pickle import plain_pickle
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS, ModelConfig, decide_tie, model_for
from vlconv.converters.tensors.rules import table
from vlconv.converters.tensors.sharding import Topology
from vlconv.converters.tensors.spec import Shape, TensorSpec

SAMPLED = 2

KINDS = ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", "qwen2", "qwen3_5_moe", "qwen3_5_text", "qwen3_next")

VALUES: tuple[Any, ...] = (
    *(True, False, None, 0, -1, 3, 2**31, -(10**99), 10**99, 0.0, 1.5, 64.0, 1e300, -1e-300),
    *(float("nan"), float("inf"), float("-inf"), "", "text", "64", "1e-06", "nan", "inf", "x" * 10_000, "a\nb"),
    *([], [0], [1, 1], [-1], [10**99], [True], [1.5], [float("nan")], ["a"], [None], [[1]], [{}], [1] * 1000),
    *({}, {"a": 1}, {"a": [{"b": {"c": []}}]}, {"config_dict": []}, {"mrope_section": 3}, {"rope_theta": []}),
)
NO_NAME = ("qwen3_next",)
"""No name tells it from another model."""
NO_JSON: tuple[Any, ...] = (b"\xff", (1, 2), {1, 2}, object())

STATED = (
    *("num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "ffn_hidden_size"),
    *("vocab_size", "padded_vocab_size", "num_experts", "num_moe_experts", "moe_ffn_hidden_size", "rotary_base"),
    *("mrope_section", "norm_epsilon", "layernorm_epsilon", "moe_router_topk", "moe_layer_freq", "rope_scaling"),
    *("untie_embeddings_and_output_weights", "share_embeddings_and_output_weights", "group_query_attention"),
    *("tie_embeddings_and_output_weights", "hf_config_json", "vision_config", "image_token_id", "eos_token_id"),
    *("linear_attention_freq", "linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim"),
    *("linear_num_key_heads", "linear_num_value_heads", "moe_shared_expert_intermediate_size", "mtp_num_layers"),
    *("rotary_percent", "attention_output_gate", "apply_layernorm_1p", "layernorm_zero_centered_gamma"),
)
"""What is read of args, run_config.yaml, args.json and mca_config.json."""

Path = tuple[str, ...]


def config_keys(config: dict[str, Any]) -> list[Path]:
    """All that a config.json of the kind has, and what other versions of transformers call otherwise."""
    text: Path = ("text_config",) if "text_config" in config else ()
    more = ("num_local_experts", "rope_parameters", "partial_rotary_factor", "head_dim", "torch_dtype")
    also = [(*text, name) for name in more]
    if text_of(config).get("rope_scaling"):
        also += [(*text, "rope_scaling", name) for name in ("type", "rope_theta")]
    if "vision_config" in config:
        also.append(("vision_config", "in_chans"))
    return sorted({*paths(config), *also, ("quantization_config",), ("text_config",)})


def statement_keys(config: dict[str, Any]) -> list[Path]:
    vision = [("vision_config", field) for field in config.get("vision_config", {})]
    return sorted([*((name,) for name in STATED), *vision, ("rope_scaling", "mrope_section")])


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = config.get("text_config", config)
    return text


def paths(document: dict[str, Any], before: Path = ()) -> Iterator[Path]:
    """Every key, with the keys that lead to it."""
    for key, value in document.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


def with_value(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    section = changed
    for key in path[:-1]:
        section = section.setdefault(key, {})
    section[path[-1]] = value
    return changed


def try_all(
    document: dict[str, Any], keys: list[Path], values: tuple[Any, ...], every: int, take: Callable[[Any], None]
) -> None:
    """Every value under every key is taken, or refused in few words; of the values every n-th, others under the next
    key.
    """
    outcomes = {"taken": 0, "refused": 0}
    wrong = []
    for number, key in enumerate(keys):
        for value in values[number % every :: every]:
            where = f"{'.'.join(key)} = {str(value)[:50]}"
            try:
                take(with_value(document, key, value))
                outcomes["taken"] += 1
            except VlconvError as error:
                outcomes["refused"] += 1
                if len(str(error)) > 3000 or not all(c.isprintable() or c == "\n" for c in str(error)):
                    wrong.append(f"{where}: says {str(error)[:200]}")
            except Exception as error:
                wrong.append(f"{where}: {type(error).__name__}: {str(error)[:100]}")
    assert not wrong, f"{len(wrong)} of {sum(outcomes.values())}:\n" + "\n".join(wrong[:40])
    assert min(outcomes.values()) > 3 // every, outcomes


def all_that_is_made(hf_config: dict[str, Any]) -> None:
    """What conversions make of a config.json, besides the mapping."""
    model = model_for(hf_config)
    config = model.config(hf_config, decide_tie(hf_config).tied)
    config_json(config_to_write(hf_config, model, tied=config.text.tied, dtype="bfloat16"))
    args = args_to_write(
        *(hf_config, config, Topology()), rows=config.text.vocab, divisor=None, dtype="bfloat16", grouped_experts=True
    )
    plain_pickle(args)
    run_config_yaml(hf_config, config, "bfloat16")


def with_every_change(kinds: Iterable[str]) -> list[Any]:
    """One model with all that a model can have in `make test`, with every third value; all with the slow tests."""
    return [("qwen3_5_moe", 3), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in kinds)]


@pytest.mark.parametrize(("kind", "every"), with_every_change(KINDS))
def test_config_json(kind: str, every: int) -> None:
    def take(document: Any) -> None:
        all_that_is_made(parse_json(json.dumps(document).encode(), "config.json"))

    config = tiny_config(kind)
    try_all(config, config_keys(config), VALUES, every, take)


@pytest.mark.parametrize(("kind", "every"), with_every_change(KINDS))
@pytest.mark.parametrize("trust", [False, True])
def test_what_is_stated_beside_a_reference(kind: str, every: int, trust: bool) -> None:
    hf_config = tiny_config(kind)
    config = model_for(hf_config).config(hf_config)
    reference = Reference(None, "given", hf_config)
    embedding = TensorSpec("word_embeddings.weight", (300, 64), "bfloat16")

    def take(values: Any) -> None:
        stated = [Stated("args", values)]
        agreed_facts(reference, config, stated, trust)
        agreed_rows({"word_embeddings.weight": embedding}, config, None, stated)

    try_all(yaml.safe_load(run_config(hf_config))["model"], statement_keys(hf_config), VALUES + NO_JSON, every, take)


@pytest.mark.parametrize(("kind", "every"), with_every_change([kind for kind in KINDS if kind not in NO_NAME]))
def test_what_is_stated_for_want_of_a_reference(kind: str, every: int) -> None:
    hf_config = tiny_config(kind)

    def take(values: Any) -> None:
        made = config_from_facts(shapes_of(kind), [("args", values)], tower="vision_model.")
        all_that_is_made(made.hf_config)

    try_all(yaml.safe_load(run_config(hf_config))["model"], statement_keys(hf_config), VALUES + NO_JSON, every, take)


@cache
def shapes_of(kind: str) -> dict[str, Shape]:
    hf_config = tiny_config(kind)
    config = model_for(hf_config).config(hf_config)
    if kind in LAYOUTS["mbridge"].models + LAYOUTS["mbridge-qwen2_5"].models:
        return table(LAYOUTS[MODELS[kind].default_layout].rules(config, 300)).left()
    if config.vision is None:
        traits = MODELS[kind].traits
        return decoder(config.text, gate=traits.gated_attention, bias=traits.qkv_bias, norms=traits.qk_norm)
    return with_tower(config)


def with_tower(config: ModelConfig) -> dict[str, Shape]:
    """A gated decoder beside Hugging Face's vision tower."""
    hub = MODELS[config.model_type].hf_tensors(config).items()
    tower = {name.replace("model.visual.", "vision_model."): s for name, s in hub if name.startswith("model.visual.")}
    return decoder(config.text, "language_model.", gate=True) | tower
