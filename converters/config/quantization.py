"""quantization_config of config.json: which of its forms are read, which tensors it speaks of, and all else refused.

Read are the fine-grained FP8 of Qwen's own releases (quant_method fp8), and FP8 of compressed-tensors by blocks or by
channels. What it says is only ever held against the files, so its patterns are matched by hand: a stranger's regular
expression can take forever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import CorruptError, UnsupportedError, shown
from ..models.shared.fields import Json

FIELD = "quantization_config"

KNOWN = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "mxfp4": "MXFP4",
    "modelopt": "a form of modelopt (NVFP4 or FP8)",
    "bitsandbytes": "bitsandbytes",
    "fbgemm_fp8": "FP8 of FBGEMM",
    "auto-round": "AutoRound",
    "torchao": "torchao",
    "hqq": "HQQ",
    "quark": "Quark",
}
"""Other quantisations, by the name that users know."""

PACKED = {
    "nvfp4-pack-quantized": "NVFP4 of compressed-tensors",
    "mxfp4-pack-quantized": "MXFP4 of compressed-tensors",
    "pack-quantized": "integers of compressed-tensors",
    "int-quantized": "integers of compressed-tensors",
    "mixed-precision": "several formats of compressed-tensors at once",
}

WAY_OUT = (
    "Use the unquantised model; FP8 is read in blocks (Qwen's own) and as compressed-tensors' FP8_BLOCK or FP8_DYNAMIC."
)

LARGEST_BLOCK = 1 << 16
MOST_MODULES = 200_000
"""Names that a list of modules has, at most: a release with experts one by one has some 60,000 tensors."""


@dataclass(frozen=True)
class Quantization:
    """A form of FP8 that is read.

    Attributes:
        title: what people call it.
        stated: quantization_config as it stands.
        place: the section of config.json that it stands in; "" for the top level.
        suffix: what is put behind a parameter's name for its scales: "_scale_inv".
        block: rows and columns that share a scale; columns 0: all of a row.
        power_of_two: scales are powers of two, whatever they are stored in.
        plain: names of modules that are not quantised.
        ends: ends of such names.
        patterns: of compressed-tensors, likewise.
    """

    title: str
    stated: Json
    place: str
    suffix: str
    block: tuple[int, int]
    power_of_two: bool = False
    plain: frozenset[str] = frozenset()
    ends: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()

    def scale_of(self, name: str) -> str:
        """The name of the scales of a parameter."""
        return name + self.suffix

    def keeps(self, name: str) -> bool:
        """Whether the config says that a tensor is not quantised."""
        module = name.removesuffix(".weight")
        parts = module.split(".")
        inside = any(".".join(parts[: n + 1]) in self.plain for n in range(len(parts)))
        return inside or module.endswith(self.ends) or any(one.fits(module) for one in self.patterns if one.known)

    def may_keep(self, name: str) -> bool:
        """Whether it may say so: a pattern that is not understood may mean any tensor."""
        return self.keeps(name) or any(not one.known for one in self.patterns)


class Pattern(NamedTuple):
    """A regular expression made of names and `.*`, matched from the beginning of a module's name.

    Attributes:
        parts: what lies between its `.*`, in order.
        closed: whether the name ends with the last of them.
        known: False of any other expression, which is not tried.
    """

    parts: tuple[str, ...]
    closed: bool
    known: bool = True

    def fits(self, module: str) -> bool:
        """Whether a module's name is meant; in time linear in it."""
        first, *others = self.parts
        if not module.startswith(first):
            return False
        at, last = len(first), len(others) - 1
        for number, part in enumerate(others):
            if self.closed and number == last:
                return len(module) - len(part) >= at and module.endswith(part)
            found = module.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return not self.closed or at == len(module)


class Split(NamedTuple):
    """A config.json in two."""

    plain: dict[str, Any]  # without quantization_config
    quantization: Quantization | None


def split_quantization(hf_config: Mapping[str, Any]) -> Split:
    """A config.json without its quantization_config, and what that says; None where there is none.

    Raises:
        UnsupportedError: a quantisation that is not read, by its name.
        CorruptError: it stands in two places and differs, or is malformed.
    """
    sections = {"": hf_config, **{name: s for name, s in hf_config.items() if isinstance(s, Mapping)}}
    sections.pop(FIELD, None)
    found = {name: section[FIELD] for name, section in sections.items() if section.get(FIELD) is not None}
    if not found:
        return Split(dict(hf_config), None)
    (place, stated), *others = found.items()
    if any(other != stated for _, other in others):
        raise CorruptError(f"config.json contradicts itself: {FIELD} stands in it twice, and differs")
    plain = {name: _without(value) for name, value in hf_config.items() if name != FIELD}
    return Split(plain, _read(stated, place, hf_config.get("model_type")))


def with_quantization(hf_config: Mapping[str, Any], found: Quantization) -> dict[str, Any]:
    """A config.json with a quantization_config, where that stood."""
    if not found.place:
        return {**hf_config, FIELD: found.stated}
    return {**hf_config, found.place: {**hf_config.get(found.place, {}), FIELD: found.stated}}


def _without(section: Any) -> Any:
    if not isinstance(section, Mapping):
        return section
    return {name: value for name, value in section.items() if name != FIELD}


def _read(stated: Any, place: str, kind: object) -> Quantization:
    if not isinstance(stated, Mapping):
        raise CorruptError(f"config.json: {FIELD} is {shown(stated)}, not an object")
    method = stated.get("quant_method")
    if method == "fp8":
        return _fine_grained(stated, place, kind)
    if method == "compressed-tensors":
        return _compressed(stated, place, kind)
    raise _refusal(kind, KNOWN.get(method, shown(method)) if isinstance(method, str) else f"method {shown(method)}")


def _refusal(kind: object, what: str) -> UnsupportedError:
    return UnsupportedError(f"config.json describes quantised weights of {shown(kind)} ({FIELD}): {what}", WAY_OUT)


def _fine_grained(stated: Json, place: str, kind: object) -> Quantization:
    """quant_method fp8, as Qwen's releases and transformers have it."""
    if stated.get("fmt", "e4m3") not in ("e4m3", None):
        raise _refusal(kind, f"fp8 with fmt {shown(stated['fmt'])}, not e4m3")
    if stated.get("activation_scheme", "dynamic") != "dynamic":
        raise _refusal(kind, f"fp8 with activation_scheme {shown(stated['activation_scheme'])}, not dynamic")
    if stated.get("weight_block_size") is None:
        raise _refusal(kind, "fp8 without weight_block_size, so with one scale for a whole tensor")
    names = _names(stated.get("modules_to_not_convert"), "modules_to_not_convert")
    rows, columns = _block(stated["weight_block_size"], "weight_block_size")
    return Quantization(
        title=f"FP8 (e4m3) in blocks of {rows} x {columns}",
        stated=stated,
        place=place,
        suffix="_scale_inv",
        block=(rows, columns),
        power_of_two=stated.get("scale_fmt") == "ue8m0",
        plain=frozenset(names),
        ends=tuple(f".{name}" for name in names),
    )


def _compressed(stated: Json, place: str, kind: object) -> Quantization:
    """compressed-tensors: FP8 by blocks or by channels, the same for all modules."""
    form, groups = stated.get("format"), stated.get("config_groups")
    if form != "float-quantized":
        raise _refusal(
            kind, PACKED.get(form, f"compressed-tensors' {shown(form)}") if isinstance(form, str) else shown(form)
        )
    if stated.get("kv_cache_scheme") is not None:
        raise _refusal(kind, "compressed-tensors with a kv_cache_scheme")
    if not isinstance(groups, Mapping) or not 0 < len(groups) <= 100:
        raise CorruptError(f"config.json: {FIELD}.config_groups is {shown(groups)}, not an object of groups")
    blocks = {_group(group, kind) for group in groups.values()}
    if len(blocks) > 1:
        raise _refusal(kind, "compressed-tensors with groups of different strategies")
    (block,) = blocks
    ignored = _names(stated.get("ignore"), "ignore")
    return Quantization(
        title="FP8 (e4m3) of compressed-tensors, "
        + (f"in blocks of {block[0]} x {block[1]}" if block[1] else "a scale for each row"),
        stated=stated,
        place=place,
        suffix="_scale",
        block=block,
        plain=frozenset(name for name in ignored if not name.startswith("re:")),
        patterns=tuple(_pattern(name.removeprefix("re:")) for name in ignored if name.startswith("re:")),
    )


def _group(group: Any, kind: object) -> tuple[int, int]:
    """The block of a group."""
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        raise CorruptError(f"config.json: {FIELD}.config_groups holds a group without weights")
    if (weights.get("num_bits"), weights.get("type")) != (8, "float"):
        what = f"{shown(weights.get('type'))} of {shown(weights.get('num_bits'))} bits"
        raise _refusal(kind, f"compressed-tensors with {what}")
    if weights.get("symmetric", True) is not True or weights.get("dynamic", False) is not False:
        raise _refusal(kind, "compressed-tensors with weights that are asymmetric or dynamic")
    strategy = weights.get("strategy")
    if strategy == "channel":
        return 1, 0
    if strategy == "block":
        return _block(weights.get("block_structure"), "block_structure")
    raise _refusal(kind, f"compressed-tensors' FP8 with strategy {shown(strategy)}")


def _block(value: Any, name: str) -> tuple[int, int]:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(type(size) is int and 0 < size <= LARGEST_BLOCK for size in value)
    ):
        raise CorruptError(f"config.json: {FIELD}: {name} is {shown(value)}, not two sizes")
    return value[0], value[1]


def _names(value: Any, name: str) -> list[str]:
    listed = [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
        raise CorruptError(f"config.json: {FIELD}: {name} is {shown(value)}, not a list of names")
    if len(listed) > MOST_MODULES:
        raise CorruptError(f"config.json: {FIELD}: {name} has {len(listed)} names, more than any model has modules")
    return listed


_SPECIAL = re.compile(r"[\\^$|?+*()\[\]{}]")


def _pattern(text: str) -> Pattern:
    closed = text.endswith("$") and not text.endswith("\\$")
    body = text.removeprefix("^").removesuffix("$").replace("\\.", ".")
    parts = tuple(body.split(".*"))
    if _SPECIAL.search("".join(parts)) or len(text) > 1000:
        return Pattern((), closed, known=False)
    return Pattern(parts, closed and bool(parts[-1]))
