"""config.json: no JSON, too much of it, or of another model than the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .case import Kind, Words, Work, either, refused
from .files import edit_json

CONFIGS = Kind("config.json", "hf", "tied", "moe", "legacy", every=3)
SIDES = ("dist", "hf")
CONFIG = "config.json"


def _text(title: str, content: bytes | Callable[[], bytes], *says: str, slow: bool = False) -> None:
    CONFIGS.add(title, SIDES, partial(_written, content), refused(CONFIG, *says), slow=slow)


def _written(content: bytes | Callable[[], bytes], work: Work) -> None:
    (work.reference / CONFIG).write_bytes(content if isinstance(content, bytes) else content())


def _edit(title: str, change: Callable[[dict[str, Any]], Any], *says: Words, bases: tuple[str, ...] = SIDES) -> None:
    CONFIGS.add(title, bases, partial(_edited, change), refused(*says))


def _edited(change: Callable[[dict[str, Any]], Any], work: Work) -> None:
    edit_json(work.reference / CONFIG, change)


def _laid_in(part: bytes, work: Work) -> None:
    """A value that json.dumps would not write."""
    path = work.reference / CONFIG
    data = path.read_bytes()
    assert b'"rope_theta": 5000000' in data
    path.write_bytes(data.replace(b'"rope_theta": 5000000', b'"rope_theta": ' + part))


_text("empty", b"")
_text("a brace", b"{")
_text("a list", b"[]")
_text("null", b"null")
_text("no UTF-8", b'{"a": "\xff"}')
_text("UTF-16", '{"a": 1}'.encode("utf-16"))
_text("zeros", bytes(1000))
_text("a pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR.")
_text("nested too deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
_text("lists nested too deep", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
_text("99 MB of spaces", lambda: b"{" + b" " * 99_000_000 + b"}", slow=True)
_text("99 MB of ones", lambda: b'{"a":[' + b"1," * 49_000_000 + b"1]}", slow=True)
_text("99 MB of lists", lambda: b'{"a":[' + b"[]," * 33_000_000 + b"1]}", slow=True)
_text("99 MB of keys", lambda: b"{" + b",".join(b'"%d":0' % i for i in range(8_000_000)) + b"}", slow=True)
_text("101 MB", lambda: b'{"a":"' + b"x" * 101_000_000 + b'"}', slow=True)
_text("9 MB of ones", lambda: b'{"a":[' + b"1," * 4_500_000 + b"1]}")

for _title, _part in {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "1e999": b"1e999",
    "a number of 100,000 digits": b"7" * 100_000,
    "a number of 400 digits": b"7" * 400,
    "a key twice": b'5000000, "rope_theta": 1',
    "a negative number": b"-1",
    "text": b'"5000000"',
    "a list": b"[5000000]",
    "true": b"true",
}.items():
    CONFIGS.add(f"rope_theta: {_title}", SIDES, partial(_laid_in, _part), refused((CONFIG, "rope_theta")))

_edit("no model_type", lambda c: c.pop("model_type"), CONFIG)
_edit("another model_type", lambda c: c.update(model_type="llama"), "llama")
_edit("a model_type of escape sequences", lambda c: c.update(model_type="\x1b[2J\nerror: x"), "model_type")
_edit("a model_type of 100,000 characters", lambda c: c.update(model_type="x" * 100_000), CONFIG)
_edit("a model_type that is a list", lambda c: c.update(model_type=["qwen3_vl"]), CONFIG)
_edit("the model_type of the MoE", lambda c: c.update(model_type="qwen3_vl_moe"), (CONFIG, "expert", "num_experts"))
_edit(
    "the model_type of Qwen2.5-VL", lambda c: c.update(model_type="qwen2_5_vl"), (CONFIG, "qwen2_5_vl", "q_proj.bias")
)
_edit("no text_config", lambda c: c.pop("text_config"), (CONFIG, "text_config"))
_edit("no vision_config", lambda c: c.pop("vision_config"), (CONFIG, "vision_config"))
_edit("a text_config of text", lambda c: c.update(text_config="x"), (CONFIG, "text_config"))
_edit("quantised", lambda c: c.update(quantization_config={"quant_method": "awq"}), "quant")
_edit("one layer more", lambda c: c["text_config"].update(num_hidden_layers=5), ("num_hidden_layers", "layers.4"))
_edit("one layer less", lambda c: c["text_config"].update(num_hidden_layers=3), ("num_hidden_layers", "layers.3"))
_edit("no layers", lambda c: c["text_config"].update(num_hidden_layers=0), "num_hidden_layers")
_edit("2^62 layers", lambda c: c["text_config"].update(num_hidden_layers=1 << 62), "num_hidden_layers")
_edit("a million layers", lambda c: c["text_config"].update(num_hidden_layers=10**6), "num_hidden_layers")
_edit("-4 layers", lambda c: c["text_config"].update(num_hidden_layers=-4), "num_hidden_layers")
_edit("4.5 layers", lambda c: c["text_config"].update(num_hidden_layers=4.5), "num_hidden_layers")
_edit("true layers", lambda c: c["text_config"].update(num_hidden_layers=True), "num_hidden_layers")
_edit(
    "layers of 400 digits", lambda c: c["text_config"].update(num_hidden_layers=10**400), ("num_hidden_layers", CONFIG)
)
_edit("another hidden size", lambda c: c["text_config"].update(hidden_size=128), "hidden_size")
_edit(
    "other heads", lambda c: c["text_config"].update(num_attention_heads=16), ("num_attention_heads", "q_proj", "qkv")
)
_edit("other groups", lambda c: c["text_config"].update(num_key_value_heads=2), ("num_key_value_heads", "k_proj"))
_edit("no groups", lambda c: c["text_config"].update(num_key_value_heads=0), "num_key_value_heads")
_edit("another FFN", lambda c: c["text_config"].update(intermediate_size=80), "intermediate_size")
_edit("another vocabulary", lambda c: c["text_config"].update(vocab_size=600), "vocab_size")
_edit("a vocabulary of 2^62", lambda c: c["text_config"].update(vocab_size=1 << 62), "vocab_size")
_edit("no vocabulary", lambda c: c["text_config"].update(vocab_size=0), "vocab_size")
_edit("another depth", lambda c: c["vision_config"].update(depth=4), ("depth", "blocks.3"))
_edit("another patch", lambda c: c["vision_config"].update(patch_size=8), "patch")
_edit("a patch of 2^62", lambda c: c["vision_config"].update(patch_size=1 << 62), "patch")
_edit("deepstack beyond the depth", lambda c: c["vision_config"].update(deepstack_visual_indexes=[0, 99]), "deepstack")
_edit("deepstack of one more", lambda c: c["vision_config"].update(deepstack_visual_indexes=[0, 1, 2]), "deepstack")
_edit("deepstack of text", lambda c: c["vision_config"].update(deepstack_visual_indexes="02"), "deepstack")
_edit("deepstack twice the same", lambda c: c["vision_config"].update(deepstack_visual_indexes=[0, 0]), "deepstack")
_edit(
    "deepstack of a million",
    lambda c: c["vision_config"].update(deepstack_visual_indexes=[0] * 10**6),
    "more than 200,000 parts",
)
_edit("no rope_theta", lambda c: c["text_config"].pop("rope_theta"), "rope_theta")
_edit(
    "a tied one",
    lambda c: (c.update(tie_word_embeddings=True), c["text_config"].update(tie_word_embeddings=True)),
    ("tie", "lm_head", "output_layer"),
)
_edit(
    "tied here and untied there",
    lambda c: c.update(tie_word_embeddings=True),
    ("tie_word_embeddings", "the model is tied"),
)
_edit(
    "a rope of escape sequences", lambda c: c["text_config"].update(rope_theta="\x1b[2J"), "rope_theta", bases=("dist",)
)


@CONFIGS.case("tied", refused(("tie", "lm_head")))
def an_untied_one_for_tied_weights(work: Work) -> None:
    _edited(lambda c: (c.update(tie_word_embeddings=False), c["text_config"].update(tie_word_embeddings=False)), work)


@CONFIGS.case(("moe", "per_layer", "legacy_moe"), refused(("num_experts", "expert")))
def another_number_of_experts(work: Work) -> None:
    _edited(lambda c: c["text_config"].update(num_experts=8), work)


@CONFIGS.case(("moe", "per_layer", "legacy_moe"), refused("num_experts_per_tok"))
def more_experts_chosen_than_there_are(work: Work) -> None:
    _edited(lambda c: c["text_config"].update(num_experts_per_tok=99), work)


@CONFIGS.case(("moe", "legacy_moe"), refused(("mlp_only_layers", "layers.1")))
def a_layer_without_experts(work: Work) -> None:
    _edited(lambda c: c["text_config"].update(mlp_only_layers=[1]), work)


@CONFIGS.case(("dist", "legacy"), refused("rope_theta", "rotary_base"))
def another_rope_than_the_args_state(work: Work) -> None:
    _edited(lambda c: c["text_config"].update(rope_theta=10000), work)


@CONFIGS.case(("fsdp", "plain", "hf"), either("rope_theta"))
def a_rope_that_nothing_speaks_against(work: Work) -> None:
    _edited(lambda c: c["text_config"].update(rope_theta=10000), work)


@CONFIGS.case(SIDES, either("auto_map"))
def code_to_trust(work: Work) -> None:
    (work.source / "configuration_evil.py").write_text(f"open({str(work.canary / 'ran')!r}, 'w')")
    _edited(lambda c: c.update(auto_map={"AutoConfig": "configuration_evil.Evil"}), work)
