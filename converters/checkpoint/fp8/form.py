"""The form of an FP8 release, for weights to be written in: which tensors are FP8, how scales and experts are held.

All of it is the reference's own: its config.json and the headers of its files. No number of it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...config.quantization import FIELD, Quantization
from ...config.reference import find_reference
from ...config.reference_weights import header_specs
from ...errors import MismatchError, ReferenceFault, shown, shown_path
from ...models import model_for
from ...models.shared.config import ModelConfig
from ...models.shared.hf_dialects import Dialect, read_dialect
from ...models.shared.model import MTP
from ...report import Report
from ...tensors.dtypes import FLOATS
from ...tensors.fp8.quantised import RULE, Quantised
from ...tensors.fp8.scaled import Scaled
from ...tensors.mapped import check_names
from ...tensors.offset import Offset
from ...tensors.spec import Reader, TensorSpec
from .files import scaled_tensors

FLAG = "--fp8-like"


@dataclass(frozen=True)
class Fp8Form:
    """How an FP8 release holds a model.

    Attributes:
        directory: of the reference.
        quantization: what its config.json says.
        scaled: its FP8 tensors and their scales.
        specs: of all its tensors but the scales, by its own names.
        scale_dtypes: name of scales -> dtype.
        dialect: how it spells the model's tensors.
    """

    directory: Path
    quantization: Quantization
    scaled: list[Scaled]
    specs: Mapping[str, TensorSpec]
    scale_dtypes: Mapping[str, str]
    dialect: Dialect

    @property
    def plain_specs(self) -> dict[str, TensorSpec]:
        """Of what stays plain."""
        return {name: spec for name, spec in self.specs.items() if spec.dtype in FLOATS}

    def plain_dtypes(self, names: Collection[str]) -> dict[str, str]:
        """The dtypes of those of some tensors that stay plain."""
        return {name: spec.dtype for name, spec in self.plain_specs.items() if name in names}

    def written(self, reader: Reader) -> tuple[Offset, Quantised]:
        """All tensors of an output in this form: what stays plain in the reference's dtype, and over it what is FP8.

        Args:
            reader: the tensors in this form's dialect.

        Raises:
            MismatchError: they are not the reference's, by name and shape.
        """
        where = f"the reference {shown_path(self.directory)} of {FLAG}"
        check_names(reader.specs, {name: spec.shape for name, spec in self.specs.items()}, f"held against {where}")
        for name, spec in reader.specs.items():
            if spec.shape != self.specs[name].shape:
                raise MismatchError(
                    f"{where}: {shown(name)} is {shown(list(self.specs[name].shape))}, and the checkpoint's "
                    f"{shown(list(spec.shape))}",
                    "It is of another model: give the FP8 release of the model that was trained.",
                )
        plain = Offset(reader, (), 0.0, self.plain_dtypes(reader.specs))
        two = self.quantization.power_of_two
        return plain, Quantised(plain, self.scaled, self.scale_dtypes, power_of_two=two)


def fp8_form(reference: str, config: ModelConfig) -> Fp8Form:
    """The form of an FP8 reference, of a model.

    Args:
        reference: --fp8-like: a directory, or a hub id.
        config: of the model to write.

    Raises:
        ReferenceFault: there is none of that name, or its weights are not FP8.
        MismatchError: config.json and files contradict each other, or it is another model.
    """
    found = find_reference(reference, None, Path())
    assert found is not None
    assert found.directory is not None
    if found.quantization is None:
        raise ReferenceFault(
            f"{FLAG} {shown_path(found.directory)} is no FP8 model: its config.json has no {FIELD}",
            "Give the FP8 release of the model.",
        )
    theirs = model_for(found.config)
    if theirs.model_type != config.model_type:
        raise MismatchError(
            f"{FLAG} {shown_path(found.directory)} is a {theirs.model_type}, and the checkpoint a {config.model_type}",
            "Give the FP8 release of the model that was trained.",
        )
    specs = header_specs(found)
    scaled = scaled_tensors(specs, found.quantization, found.directory)
    scales = {one.scale for one in scaled}
    kept = {name: spec for name, spec in specs.items() if name not in scales and _wanted(name, config)}
    return Fp8Form(
        directory=found.directory,
        quantization=found.quantization,
        scaled=[one for one in scaled if one.name in kept],
        specs=kept,
        scale_dtypes={name: specs[name].dtype for name in scales},
        dialect=read_dialect({name: spec.shape for name, spec in kept.items()}, config),
    )


def describe_fp8(report: Report, form: Fp8Form) -> None:
    """That FP8 is written, in whose form, and by which rule."""
    scales = " and ".join(sorted(set(form.scale_dtypes.values())))
    report.fact(
        "quantised",
        f"{len(form.scaled)} tensors become {form.quantization.title} with {scales} scales, as in "
        f"{shown_path(form.directory)}: {RULE}",
        brief=f"{len(form.scaled)} tensors become {form.quantization.title}, as in {shown_path(form.directory)}",
        quantised={
            "form": form.quantization.title,
            "scales": sorted(set(form.scale_dtypes.values())),
            "like": str(form.directory),
            "rule": RULE,
            "tensors": [one.name for one in form.scaled],
        },
    )


def _wanted(name: str, config: ModelConfig) -> bool:
    """Whether a tensor is of what is written: a multi-token-prediction head may be left out."""
    return config.text.mtp > 0 or not name.startswith(MTP)
