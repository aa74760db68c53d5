"""What mcore2hf writes, opened by vLLM itself: its log-probabilities against those of transformers on the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from serving.damage import EXCHANGES, damage
from serving.engine import ENVIRONMENT, vllm_logprobs
from serving.forms import FORMS, write_form
from serving.logprobs import Logprobs, transformers_logprobs
from serving.prompts import asked
from serving.sources import write_source

NEAR = 1e-4
"""Apart by less: another order of the same sums in float32."""

FAR = 1e-2
"""Apart by more: another model."""

pytestmark = pytest.mark.serving

Distances = dict[str, float]


@pytest.fixture(scope="module", autouse=True)
def vllm_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a source, made once."""

    @cache
    def made(name: str) -> Path:
        directory = tmp_path_factory.mktemp("source") / "hf"
        write_source(directory, name)
        return directory

    return made


@pytest.fixture(scope="module")
def expected(source: Callable[[str], Path]) -> Callable[[str], dict[str, Logprobs]]:
    """What transformers says on a source, asked once."""
    return cache(lambda name: transformers_logprobs(source(name), asked(name)))


@pytest.fixture
def distances(tmp_path: Path, source, expected, record_property) -> Callable[..., Distances]:
    """How far vLLM on a form is from transformers on its source, for each prompt."""

    def measured(name: str, spoil: Callable[[Path], None] | None = None) -> Distances:
        form = FORMS[name]
        write_form(tmp_path / "hf", form, source(form.source))
        if spoil:
            spoil(tmp_path / "hf")
        found = vllm_logprobs(tmp_path / "hf", asked(form.source))
        wanted = expected(form.source)
        result = {prompt: found[prompt].distance(wanted[prompt]) for prompt in found}
        record_property("vLLM against transformers", ", ".join(f"{p} {d:.1e}" for p, d in result.items()))
        return result

    return measured


@pytest.mark.parametrize("name", FORMS)
def test_vllm_agrees_with_transformers_on_the_source(name: str, distances) -> None:
    found = distances(name)
    assert all(distance < NEAR for distance in found.values()), found  # a NaN is not near


@pytest.mark.parametrize("what", EXCHANGES)
def test_a_quiet_mistake_is_seen(what: str, distances) -> None:
    exchange = EXCHANGES[what]
    found = distances(exchange.form, lambda directory: damage(directory, exchange))
    assert all(found[prompt] > FAR for prompt in exchange.moved if prompt in found), found
    assert all(found[prompt] < NEAR for prompt in found if prompt not in exchange.moved), found
