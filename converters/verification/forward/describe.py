"""What is said of models that were run: what computing them differs in, beside what their weights differ in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...errors import shown, sized
from ...report import Fact, Report
from .batch import LENGTH, MARKS, SEQUENCES, images_taken
from .config_told import config_told
from .forward import IMAGES, TEXT, Forward, Ran
from .hugging_face.run import Faults
from .logits import DIFFERENT, EQUAL, FEW, NOISE, NOTHING, Gap
from .sizes import EXACT
from .whose_config import config_from, shared

LISTED = 5
"""Tensors that a sentence names."""

FAULTS = {
    "missing_keys": "does not find {} in {}'s files and would make them up",
    "unexpected_keys": "has no use for {} of {}",
    "mismatched_keys": "wants {} of {} in other shapes",
}


def describe_plan(report: Report, forward: Forward) -> None:
    """What will be run, and how."""
    fit, options = forward.fit, forward.options
    one = len(forward.models) == 1
    who = "what A is converted to" if one else "A and B, one after the other"
    layers = f", the first {options.layers} decoder layers alone" if options.layers else ""
    images = f" and {SEQUENCES} with an image" if forward.batch.images is not None else ""
    where = "the CPU" if options.device == "cpu" else "the GPU"
    report.fact(
        "forward",
        f"{forward.library} runs {who}{layers}, in {fit.dtype} on {where} ({sized(fit.needed)} of memory, "
        f"{sized(fit.free)} free): {SEQUENCES} texts of {LENGTH} tokens{images}; A also in other ways, which shows the "
        "noise of computing it",
        forward={
            "library": forward.library,
            "dtype": fit.dtype,
            "device": options.device,
            "layers": options.layers,
            "memory_needed": fit.needed,
            "memory_free": fit.free,
            "copied": {model.name: model.copied for model in forward.models},
            "config_from": {m.name: str(found) if (found := config_from(m)) else None for m in forward.models},
        },
    )
    if shared(forward.models):
        text = "A and B are run with the same one: what is wrong in it shows in neither"
        report.facts.append(Fact("config_json", text))
    if fit.dtype != EXACT:
        report.warnings.append(
            f"models are run in {fit.dtype}, as there is no memory for {EXACT}: noise is larger, and smaller faults "
            "stay below it"
        )
    for name, why in forward.without_megatron.items():
        text = f"does not run this: {why}" if why else "runs its language model on the texts, too, from its own tensors"
        report.facts.append(Fact("megatron_core", text, "" if one else name))
    if len(taken := _images(forward)) > 1:
        report.warnings.append(f"no image is run: A and B take other ones (token ids and sizes: {shown(taken)})")
    elif taken == {None} and forward.models[0].config.vision:
        report.warnings.append(f"no image is run: not all of {', '.join(MARKS)} of config.json are in the vocabulary")


def _images(forward: Forward) -> set[tuple[int, ...] | None]:
    """How the models take images: one way, or several."""
    return {images_taken(model.config, model.hf_config) for model in forward.models}


def describe_ran(report: Report, forward: Forward, ran: Ran) -> None:
    """What came of it; the report's status and result were those of the weights, and become those of both."""
    same, said = report.status == "same", report.result
    data: dict[str, Any] = report.data["forward"]
    data["parts"] = {part: _as_data(found) for part, found in ran.parts.items()}
    data["megatron_core"] = {n: {"by": by, **_as_data(found)} for n, (by, found) in ran.megatron.items()}
    data["megatron_core"] |= {n: {"not_run": why} for n, why in forward.without_megatron.items() if why}
    data["megatron_core"] |= {n: {"not_run": why} for n, why in ran.failed.items()}
    report.warnings += [f"{name}: megatron-core did not compute this: {why}" for name, why in ran.failed.items()]
    data["faults"] = ran.faults
    for name, faults in ran.faults.items():
        report.facts.append(Fact("not_run", _faults(name, faults)))
    for part, found in ran.parts.items():
        report.facts.append(Fact(f"logits_of_{part}", _words(found)))
    for name, (by, found) in ran.megatron.items():
        side = name if len(forward.models) > 1 else ""
        report.facts.append(Fact("by_megatron_core", f"{by}, from transformers on the texts: {_words(found)}", side))
        if found.verdict == FEW:
            where = f"{found.apart:,} of {found.positions:,} positions"
            report.warnings.append(
                f"megatron-core and transformers are further apart than noise at {where}: a router's near tie makes "
                "that, and so would damage in one expert that those tokens use"
            )
    report.facts.append(Fact("so", _conclusion(forward, ran, same=same)))
    gaps = [*ran.parts.values(), *(found for _, found in ran.megatron.values())]
    report.warnings += [
        f"what is taken for noise is up to {found.noise:.2g}, and the logits' own spread is {found.spread:.2g}: a "
        "fault may hide in it"
        for found in gaps
        if found.loud and found.verdict == NOISE
    ]
    verdicts = [found.verdict for found in gaps]
    if same and (ran.faults or DIFFERENT in verdicts or len(_images(forward)) > 1):
        report.status = "different"
        report.result = f"different: the weights are the same, {_other(ran, forward)}"
    elif not ran.faults:
        report.result = f"{said}; {_in_short(verdicts)}"


def _in_short(verdicts: list[str]) -> str:
    if DIFFERENT in verdicts:
        return "logits differ"
    if NOTHING in verdicts:
        return "logits are no numbers"
    if FEW in verdicts:
        return "logits differ at few positions"
    return "logits are equal bit for bit" if set(verdicts) == {EQUAL} else "logits differ by no more than noise"


def _other(ran: Ran, forward: Forward) -> str:
    if ran.faults:
        return f"and transformers does not load {' and '.join(ran.faults)} whole"
    far = [(part, found) for part, found in ran.parts.items() if found.verdict == DIFFERENT]
    far += [("text by megatron-core", f) for _, f in ran.megatron.values() if f.verdict == DIFFERENT]
    if not far:
        return "and they do not take the same images"
    return "the logits are not: " + ", ".join(f"{part} at most {found.max_abs:.3g} apart" for part, found in far)


def _as_data(found: Gap) -> dict[str, Any]:
    return {"verdict": found.verdict, **asdict(found), "relative": found.relative}


def _words(found: Gap) -> str:
    if found.verdict == NOTHING:
        return f"none is a number on both sides at any of {found.positions} positions, so nothing is compared"
    nan = f"; not all are numbers at {found.nan} positions" if found.nan else ""
    if found.equal:
        return f"equal bit for bit at all {found.positions} positions{nan}"
    far = f"at most {found.max_abs:.3g} apart ({found.relative:.2g} of their spread)"
    token = f"another most likely token at {found.other_token} of {found.positions} positions"
    unsure = f" (not counting {found.unsure} at which A takes other experts by itself)" if found.unsure else ""
    if not found.apart:
        noise = f"computing one of them in other ways makes up to {found.noise:.2g}{unsure}"
        return f"{far}, which is noise: {noise}; {token}{nan}"
    where = f"at {found.apart} of {found.positions} positions{unsure}"
    return f"{far}, above the noise of {found.noise:.2g} {where}; {token}{nan}"


def _faults(name: str, faults: Faults) -> str:
    told = []
    for kind, (count, names) in faults.items():
        listed = ", ".join(shown(one) for one in names[:LISTED]) + f", … {count - LISTED} more" * (count > LISTED)
        text = FAULTS.get(kind, f"says {shown(kind)} of {{}} of {{}}")
        told.append(f"transformers {text.format(f'{count} tensors', name)}: {listed}")
    return "; ".join(told)


def _conclusion(forward: Forward, ran: Ran, *, same: bool) -> str:
    """Weights and computation in one sentence."""
    if ran.faults:
        return "no logits are compared: numbers that are made up would be among them"
    if len(forward.models) == 1:
        [(_, found)] = ran.megatron.values()
        if found.verdict == DIFFERENT:
            return "megatron-core and transformers compute different models: the layout, or the config, is not this one"
        but = ", but for few positions" * (found.verdict == FEW)
        return f"megatron-core computes of the checkpoint what transformers computes of what it is converted to{but}"
    far = [part for part, found in ran.parts.items() if found.verdict == DIFFERENT]
    others = [name for name, (_, found) in ran.megatron.items() if found.verdict == DIFFERENT]
    nothing = [part for part, found in ran.parts.items() if found.verdict == NOTHING]
    if nothing and not far:
        weights = "the weights are the same, and" if same else "the weights differ, and"
        return f"{weights} what comes of them are no numbers (NaN, or infinite), so nothing is known of computing them"
    if others and not far:
        names = " and ".join(others)
        return f"A and B compute the same, and megatron-core another model of {names}: its layout is not this one"
    if same and (far or len(_images(forward)) > 1):
        return f"the weights are the same and the models are not: {config_told(*forward.models)}"
    if same:
        equal = all(found.equal for found in ran.parts.values())
        return "the same weights, computing the same" if equal else f"the same weights; {config_told(*forward.models)}"
    if not far:
        return "what differs in the weights changes nothing here beyond the noise of computing"
    if far == [IMAGES] and not nothing:
        return "text is computed the same, images are not: what differs is in the way of images, the vision tower"
    only_text = far == [TEXT] and IMAGES in ran.parts and not nothing
    return "what differs in the weights changes what is computed" + " of text alone" * only_text
