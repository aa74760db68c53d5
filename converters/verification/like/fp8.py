"""FP8 weights against an FP8 reference: codes, their scales, and what quantization_config says of them.

What comes of each fault was seen with transformers on a CPU, which makes plain weights of FP8 ones as it loads them; it
names neither scales that are missing nor those that are left over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ...config.quantization import FIELD, Quantization
from ...errors import NotComparable, shown_path
from ...tensors.fp8.codes import E4M3
from ...tensors.fp8.scaled import Scaled
from ...tensors.spec import TensorSpec
from .config_fields import Described
from .held import Held, are, finding, listed
from .reference import Like

CODES = "transformers takes the codes for the weights themselves"


def check_comparable(held: Held, ours: Described, like: Like, directory: Path) -> None:
    """Plain weights have not the tensors of FP8 ones; config.json alone may be what is wrong.

    Raises:
        NotComparable: one of both is FP8, by its tensors and by its config.json.
    """
    if ours.config is None:
        return
    codes = is_fp8(held.specs)
    if (like.quantization and not codes and not ours.quantization) or (
        not like.quantization and ours.quantization and (codes or not held.specs)
    ):
        which = shown_path(like.directory if like.quantization else directory)
        raise NotComparable(
            f"the weights of {which} are FP8, and the others are not",
            "Give --like an FP8 release for FP8 weights, and a plain one for plain weights.",
        )


def is_fp8(specs: Mapping[str, TensorSpec]) -> bool:
    """Whether some tensors are FP8 codes."""
    return any(spec.dtype == E4M3 for spec in specs.values())


def scales(held: Held, ours: Described, like: Like) -> set[str]:
    """The names of scales of weights that are there: what is to be said of them is said here."""
    if like.quantization is None:
        return set()
    weights = [name for name, spec in like.specs.items() if spec.dtype == E4M3 and name in held.specs]
    return {said.scale_of(name) for said in (like.quantization, ours.quantization) if said for name in weights}


def tell_fp8(held: Held, ours: Described, like: Like) -> None:
    """What is wrong with codes, scales and quantization_config.

    Args:
        held: told.
        ours: what the directory's config.json says.
        like: the reference.
    """
    said, codes = ours.quantization, [name for name, spec in held.specs.items() if spec.dtype == E4M3]
    if said and not codes and not like.quantization:
        held.wrong(
            "config",
            f"config.json has a {FIELD}, and no tensor is FP8",
            "vLLM makes FP8 layers, and finds neither codes nor scales",
        )
    if like.quantization is None:
        return
    if not said and codes and ours.config is not None:
        held.wrong("config", f"config.json has no {FIELD}, and {are(codes)} FP8", f"{CODES}, and no scale", codes)
    _tell_codes(held, codes, said or like.quantization, stated=said)
    _tell_plain(held, said or like.quantization, like)
    if said and codes and said.block != like.quantization.block:
        what = f"config.json states {said.title}, and the reference has {like.quantization.title}"
        held.findings.append(finding("note", "config", what, "it loads; the weights were rounded otherwise", []))


def _tell_codes(held: Held, codes: list[str], said: Quantization, stated: Quantization | None) -> None:
    """FP8 tensors without scales, with others, and those that are said to be none."""
    bare = [name for name in codes if said.scale_of(name) not in held.specs and said.scale_of(name) not in held.lost]
    if bare:
        what = f"no scales beside {_many(bare)}: {listed(bare)}"
        load = f"{CODES} and says nothing; vLLM refuses, or serves unset memory without a word"
        held.wrong("names", what, load, [said.scale_of(name) for name in bare])
    unfit = list(_unfit(held.specs, codes, said))
    if unfit:
        held.wrong(
            "shapes",
            f"the scales beside {_many(unfit)} are not those of {said.title}: {listed(unfit)}",
            "transformers spreads over a weight what scales there are, and says nothing; vLLM refuses the shape",
            unfit,
        )
    kept = [name for name in codes if stated and stated.keeps(name)]
    if kept:
        what = f"{are(kept)} FP8, which {FIELD} lists as not quantised: {listed(kept)}"
        held.wrong("config", what, "transformers finds their scales; vLLM makes plain layers of them", kept)


def _many(names: list[str]) -> str:
    return f"{len(names)} FP8 tensors" if len(names) != 1 else "1 FP8 tensor"


def _unfit(specs: Mapping[str, TensorSpec], codes: list[str], said: Quantization) -> Iterator[str]:
    for name in codes:
        scale = specs.get(said.scale_of(name))
        if scale is None or len(specs[name].shape) < 2:
            continue
        if scale.shape != Scaled(name, scale.name, said.block).scale_shape(specs[name].shape):
            yield name


def _tell_plain(held: Held, said: Quantization, like: Like) -> None:
    """Tensors that are plain, and FP8 in the reference; and those that are plain in both and were said to be."""
    plain = [name for name, spec in held.specs.items() if spec.dtype != E4M3 and name in like.specs]
    known = [name for name in plain if like.specs[name].dtype == E4M3]
    scaled = [name for name in known if said.scale_of(name) in held.specs]
    if scaled:
        what = f"{are(scaled)} plain, with scales beside, and FP8 in the reference: {listed(scaled)}"
        load = "transformers multiplies by the scales, and says nothing; vLLM makes FP8 layers of them"
        held.wrong("dtypes", what, load, scaled)
    others = [name for name in known if said.scale_of(name) not in held.specs]
    kept = [name for name in others if said.may_keep(name)]
    if kept:
        what = f"{are(kept)} plain, as {FIELD} says, and FP8 in the reference: {listed(kept)}"
        held.findings.append(finding("note", "dtypes", what, "it loads: they are not quantised", kept))
    unsaid = [name for name in others if not said.may_keep(name)]
    assert like.quantization is not None
    matrices = [name for name in plain if name not in known and len(held.specs[name].shape) == 2]
    unsaid += [name for name in matrices if like.quantization.keeps(name) and not said.may_keep(name)]
    if unsaid:
        what = f"{are(unsaid)} plain, and {FIELD} does not say so: {listed(unsaid)}"
        held.wrong("config", what, "transformers takes them as they are; vLLM makes FP8 layers of them", unsaid)
