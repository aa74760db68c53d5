"""Names, shapes and dtypes of a directory against those of a reference, in the directory's own dialect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...checkpoint.absent.mtp import layers_of, with_layers
from ...checkpoint.shape_errors import is_turned
from ...errors import MismatchError, shown
from ...models.shared.config import ModelConfig
from ...models.shared.hf_dialects import Dialect, dialect_copies, one_by_one_is_read, read_dialect
from ...models.shared.model import MTP
from ...tensors.dtypes import FLOATS
from ...tensors.fp8.codes import E4M3, E8M0
from ...tensors.rules import hulls
from ...tensors.spec import Shape, TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from .held import Held, are, finding, listed
from .reference import Like

MADE_UP = (
    "transformers fills it with random numbers and says so in its log alone; vLLM refuses, or serves unset memory "
    "without a word"
)
"""What becomes of a missing tensor.

vLLM 0.32 was seen to refuse a missing layer or norm, and to serve without an output layer, without a tensor of the
tower, and without one of several that it holds as one (q, k and v).
"""

UNKNOWN = "transformers ignores it; vLLM refuses a name that it does not know"

MOST = 12
"""Groups of names that are told one by one."""


class Expected(NamedTuple):
    """What the directory is to hold, spelled as it spells names.

    Attributes:
        shapes: by name.
        dtypes: by name; {}: not known.
        dialect: how it spells them.
    """

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    dialect: Dialect


def expected(held: Held, like: Like) -> Expected:
    """What a directory is to hold, of the reference's model; a fault of its dialect is a finding."""
    if like.quantization:
        shapes = {name: spec.shape for name, spec in like.specs.items()}
        return Expected(shapes, {name: spec.dtype for name, spec in like.specs.items()}, Dialect())
    config = with_layers(like.config, min(1, layers_of(held.specs)) if like.model.traits.mtp else 0)
    shapes = {name: spec.shape for name, spec in held.specs.items()}
    try:
        dialect = read_dialect(shapes, config)
    except MismatchError as error:
        held.wrong("names", error.what, "transformers and vLLM refuse shapes that they do not expect")
        dialect = Dialect()
    if not one_by_one_is_read(dialect, like.model.traits):
        held.wrong(
            "names",
            "the experts are one by one, where this model's releases hold them in two tensors to a layer",
            "vLLM and SGLang read that; transformers makes up its experts",
        )
    if like.model.traits.experts_on_hub == "transposed" and dialect.experts == "transformers-5":
        held.wrong(
            "names",
            "the experts are as transformers 5 saves them, [E, 2M, H] and [E, H, M]; this model's releases hold them "
            "transposed",
            "transformers 5 reads that; transformers 4.57, vLLM and SGLang do not",
        )
    copies = dialect_copies(config, dialect)
    dtypes = {copy.left.name: like.dtypes[copy.right.name] for copy in copies if copy.right.name in like.dtypes}
    return Expected(hulls(copy.left for copy in copies), dtypes, dialect)


def tell_names(held: Held, want: Expected, towers: Sequence[str], told: Collection[str] = ()) -> None:
    """Tensors that are missing or surplus; the output layer and the multi-token-prediction head are told elsewhere.

    Args:
        held: told.
        want: what is to be there.
        towers: what names of the vision tower begin with.
        told: names of which is told elsewhere.
    """
    here = {name for name in held.specs if not _elsewhere(name) and name not in told}
    there = {name for name in want.shapes if not _elsewhere(name) and name not in told}
    missing, surplus = sorted(there - here - held.lost), sorted(here - there)
    if other := _other_beginning(missing, surplus):
        what, names = other
        held.wrong("names", what, f"{MADE_UP}; the names that are there mean nothing to them", names)
        renamed = set(names)
        surplus = [name for name in surplus if name not in renamed]
        missing = missing if len(names) < len(missing) else []
    for words, names in _grouped(missing, there, towers):
        held.wrong("names", f"missing: {words}", MADE_UP, names)
    for words, names in _grouped(surplus, here, ()):
        held.wrong("names", f"not expected: {words}", UNKNOWN, names)


def _elsewhere(name: str) -> bool:
    return name.endswith(OUTPUT_LAYER) or name.startswith(MTP)


def _other_beginning(missing: Sequence[str], surplus: Sequence[str]) -> tuple[str, list[str]] | None:
    """Names that only begin otherwise: what is said of them, and they."""
    wanted = set(missing)
    found: dict[tuple[str, str], list[str]] = {}
    for name in surplus:
        for at in [0, *(i + 1 for i, c in enumerate(name[:200]) if c == ".")]:
            if at and name[at:] in wanted:
                found.setdefault((name[:at], ""), []).append(name)
                break
        else:
            for known in ("model.", "model.language_model.", "model.visual."):
                if known + name in wanted:
                    found.setdefault(("", known), []).append(name)
    if not found:
        return None
    (more, less), names = max(found.items(), key=lambda pair: len(pair[1]))
    if len(names) < 2:
        return None
    how = f"begin with {shown(more)}, which does not belong there" if more else f"lack {shown(less)} before them"
    return f"{len(names)} names {how}: {listed(names)}", names


def _grouped(names: Sequence[str], whole: set[str], towers: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Names put together: a whole tower, whole layers, and one module through several layers.

    Args:
        names: to be told.
        whole: all that they are some of.
        towers: what names of the vision tower begin with.
    """
    left = list(names)
    for tower in towers:
        of_tower = [name for name in left if name.startswith(tower)]
        if of_tower and len(of_tower) == sum(name.startswith(tower) for name in whole):
            yield f"the whole vision tower, {len(of_tower)} tensors", of_tower
            left = [name for name in left if not name.startswith(tower)]
    sizes = Counter(filter(None, map(_layer, whole)))
    missing = Counter(filter(None, map(_layer, left)))
    gone = {layer: None for layer, count in missing.items() if count == sizes[layer]}
    if gone:
        of_layers = [name for name in left if _layer(name) in gone]
        yield f"{len(gone)} whole layers ({listed([*gone])}), {len(of_layers)} tensors", of_layers
        left = [name for name in left if _layer(name) not in gone]
    groups = _by_form(left)
    for number, (form, group) in enumerate(groups.items()):
        if number == MOST:
            rest = [name for other in list(groups.values())[MOST:] for name in other]
            yield f"{len(rest)} more", rest
            return
        yield (shown(group[0]) if len(group) == 1 else f"{shown(form)}, {len(group)} tensors"), group


def _by_form(names: Sequence[str]) -> dict[str, list[str]]:
    """Names of one module through several layers together; what one layer alone misses by that layer."""
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(_form(name), []).append(name)
    groups: dict[str, list[str]] = {}
    for form, group in forms.items():
        layer = _layer(group[0])
        groups.setdefault(f"{layer}.*" if layer and len(group) == 1 else form, []).extend(group)
    return groups


def _form(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _layer(name: str) -> str:
    """The layer or block that a tensor is of: "model.layers.3"; "" of none."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit() and parts[i - 1] in ("layers", "blocks")), None)
    return ".".join(parts[: at + 1]) if at else ""


def tell_shapes(held: Held, want: Expected, own: Mapping[str, Shape] | None) -> None:
    """Tensors of other shapes.

    Args:
        held: told.
        want: what is to be there.
        own: the shapes that the directory's own config.json describes; None: it cannot be read.
    """
    groups: dict[tuple[str, Shape, Shape, bool], list[str]] = {}
    for name, shape in want.shapes.items():
        spec = held.specs.get(name)
        if spec is not None and spec.shape != shape:
            agrees = own is not None and own.get(name) == spec.shape
            groups.setdefault((_form(name), spec.shape, shape, agrees), []).append(name)
    for (form, found, known, agrees), names in groups.items():
        rows = names[0].endswith((*EMBEDDING, *OUTPUT_LAYER)) and found[1:] == known[1:]
        padded = ", as where vocabulary padding is not cut" if rows and found[0] > known[0] else ""
        turned = ", the shape of the transpose" if is_turned(found, known) else ""
        name = shown(names[0]) if len(names) == 1 else f"{shown(form)} in {len(names)} places"
        what = f"{name} has shape {list(found)}, {list(known)} in the reference{padded}{turned}"
        if agrees and rows:
            held.findings.append(finding("note", "shapes", what, "it loads, as config.json has as many rows", names))
        elif agrees:
            held.wrong("shapes", what, "it loads, as config.json says the same: it is another model", names)
        else:
            held.wrong("shapes", what, "transformers and vLLM stop with an error: config.json has another shape", names)


def tell_dtypes(held: Held, want: Expected, *, quantised: bool) -> None:
    """Tensors of other dtypes than the reference's, or of one that is no float's; FP8 beside FP8 is told elsewhere."""
    groups: dict[tuple[str, str], list[str]] = {}
    strange: dict[str, list[str]] = {}
    usual = (*FLOATS, E4M3, E8M0) if quantised else FLOATS
    for name, spec in held.specs.items():
        known = want.dtypes.get(name)
        if spec.dtype not in usual and known in (None, *FLOATS, E8M0):
            strange.setdefault(spec.dtype, []).append(name)
        elif known and spec.dtype != known and (not quantised or E4M3 not in (spec.dtype, known)):
            groups.setdefault((spec.dtype, known), []).append(name)
    for dtype, names in strange.items():
        held.wrong(
            "dtypes",
            f"{are(names)} {dtype}{', and config.json has no quantization_config' * (not quantised)}: {listed(names)}",
            "the codes are taken for the weights themselves, without a scale",
            names,
        )
    for (dtype, known), names in groups.items():
        of = f"all {len(names)}" if len(names) == len(held.specs) else f"{len(names)} of {len(held.specs)}"
        wide = "the same numbers in more bytes" if dtype in ("float32", "float64") else "numbers may have been rounded"
        what = f"{of} tensors are {dtype}, {known} in the reference: {listed(names)}"
        load = f"it loads, and is cast to the dtype asked for: {wide}"
        held.findings.append(finding("note", "dtypes", what, load, names))


def shapes_of(config: ModelConfig, dialect: Dialect, specs: Mapping[str, TensorSpec]) -> dict[str, Shape]:
    """Names and shapes that a directory's own config.json describes, in its dialect."""
    head = min(1, layers_of(specs)) if config.text.mtp else 0
    return hulls(copy.left for copy in dialect_copies(with_layers(config, head), dialect))
