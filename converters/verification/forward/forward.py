"""verify --forward: two sides are run on the same batch, one after the other, and their logits compared.

The first is run in several ways: how far it then lies from itself is the noise of computing it, and what is further
apart is of the models. A Megatron side is run as what vlconv converts it to, and its language model by megatron-core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...checkpoint.mcore_side import McoreSide
from ...errors import NotComparable
from ...options import VerifyOptions
from ...output.staging.scratch import Scratch
from ...report import Observer, Phase, tell_phase
from ...workers import workers_of
from .batch import Batch
from .hugging_face.run import Faults, file_of, logits_of
from .hugging_face.way import PLAIN, WAYS
from .logits import NOTHING, Gap, Noise, gap, larger, measured_noise
from .megatron.run import again_of, run_megatron
from .model import Model
from .sizes import Fit

TEXT, IMAGES = "text", "images"
NAME = "vlconv-forward"
"""What the temporary directory's name begins with."""


@dataclass(frozen=True)
class Ran:
    """What came of a run.

    Attributes:
        faults: side -> what of its files does not fit the model that transformers makes; nothing is compared then.
        parts: part of the batch -> how far B's logits are from A's; empty of one side alone.
        megatron: Megatron side -> what computed its text, and how far that is from transformers'.
        failed: Megatron side -> why megatron-core did not compute it after all; of two sides.
    """

    faults: dict[str, Faults] = field(default_factory=dict)
    parts: dict[str, Gap] = field(default_factory=dict)
    megatron: dict[str, tuple[str, Gap]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Forward:
    """Models that are ready to be run.

    Attributes:
        models: one or two.
        batch: what they are run on.
        fit: in which dtype.
        library: what runs them.
        options: layers and device.
        without_megatron: Megatron side -> why megatron-core does not run it, in words; "": it does.
    """

    models: Sequence[Model]
    batch: Batch
    fit: Fit
    library: str
    options: VerifyOptions
    without_megatron: dict[str, str]

    @property
    def parts(self) -> list[str]:
        """Of the batch."""
        return [TEXT] + [IMAGES] * (self.batch.images is not None)

    def run(self, observer: Observer) -> Ran:
        """Run all, in a temporary directory that is removed.

        Raises:
            NotComparable: a library fails, or its process died.
        """
        scratch = Scratch(Path(tempfile.gettempdir()), NAME)
        try:
            with scratch as folder:
                return self._run(folder, observer)
        finally:
            scratch.remove()

    def _run(self, folder: Path, observer: Observer) -> Ran:
        self.batch.save(folder / "batch.npz")
        faults = {}
        for model in self.models:
            ways = WAYS if model is self.models[0] or self._by_megatron(model) else [PLAIN]
            if found := self._by_transformers(model, folder, ways, observer):
                faults[model.name] = found
        if faults:
            return Ran(faults)
        ran = Ran(faults, self._compared(folder))
        for model in self.models:
            if self._by_megatron(model):
                tell_phase(observer, Phase.RUNNING)
                try:
                    ran.megatron[model.name] = self._megatron(model, folder)
                except NotComparable as fault:
                    if len(self.models) == 1:
                        raise
                    ran.failed[model.name] = fault.what  # what took minutes is told all the same
        return ran

    def _by_transformers(self, model: Model, folder: Path, ways: Sequence[str], observer: Observer) -> Faults:
        logits = folder / model.name
        logits.mkdir()
        with Scratch(folder, NAME) as place:
            directory = model.side.directory
            if not model.own:
                workers = workers_of(self.options.threads, self.options.memory_bytes)
                model.copy_to(place, workers, observer)
                directory = place
            tell_phase(observer, Phase.RUNNING)
            return logits_of(
                *(directory, folder / "batch.npz", self.parts, logits),
                tower=model.config.vision is not None,
                dtype=self.fit.dtype,
                device=self.options.device,
                ways=ways,
            )

    def _by_megatron(self, model: Model) -> bool:
        return self.without_megatron.get(model.name) == ""

    def _megatron(self, model: Model, folder: Path) -> tuple[str, Gap]:
        assert isinstance(model.side, McoreSide)
        theirs = folder / model.name / "megatron.npy"
        by = run_megatron(model.side, self.batch.text, theirs, self.options.layers, self.options.device)
        ours, noise = file_of(folder / model.name, PLAIN, TEXT), self._noise(model, folder, TEXT)
        if (again := again_of(theirs)).exists():
            noise = larger(noise, measured_noise(theirs, [again], experts=model.config.text.experts > 0))
        found = gap(theirs, ours, noise, picks=model.config.text.experts > 0)
        _refuse_nothing(found)
        return by, found

    def _compared(self, folder: Path) -> dict[str, Gap]:
        if len(self.models) == 1:
            return {}
        first, second = self.models
        return {
            part: gap(
                file_of(folder / first.name, PLAIN, part),
                file_of(folder / second.name, PLAIN, part),
                self._noise(first, folder, part),
            )
            for part in self.parts
        }

    def _noise(self, model: Model, folder: Path, part: str) -> Noise:
        plain, *others = (file_of(folder / model.name, way, part) for way in WAYS)
        return measured_noise(plain, others, experts=model.config.text.experts > 0)


def _refuse_nothing(found: Gap) -> None:
    """Raises NotComparable: neither megatron-core nor transformers computes a number."""
    if found.verdict == NOTHING:
        raise NotComparable(
            "megatron-core and transformers compute no numbers of it (NaN, or infinite), so nothing is compared",
            "Look for NaN in the weights: vlconv mcore2hf names the tensors that have some.",
        )
