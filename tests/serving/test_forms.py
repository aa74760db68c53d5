"""Nothing that is written is left out of what vLLM reads in test_vllm."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

from serving.damage import EXCHANGES
from serving.forms import FORMS
from serving.sources import SOURCES
from vlconv.converters import Mcore2HfOptions
from vlconv.converters.models import MODELS

SERVED = {name for name, model in MODELS.items() if not model.traits.linear_attention}
"""A Gated DeltaNet's kernels in vLLM are those of a GPU."""


def test_every_model_is_served_with_a_given_and_with_a_made_config() -> None:
    kinds = {(SOURCES[form.source]["model_type"], form.made_config) for form in FORMS.values()}
    assert kinds == {(model, made) for model in SERVED for made in (False, True)}


def test_every_choice_of_a_form_is_served() -> None:
    hints = get_type_hints(Mcore2HfOptions)
    choices = {f.name: get_args(hints[f.name]) for f in fields(Mcore2HfOptions)}
    named = {name: values for name, values in choices.items() if values and all(isinstance(v, str) for v in values)}
    del named["adapter_experts"]  # of an adapter, which is no model
    assert named
    for name, values in named.items():
        assert {getattr(form.options, name) for form in FORMS.values()} == set(values), name


def test_every_model_is_damaged_once() -> None:
    damaged = {SOURCES[FORMS[exchange.form].source]["model_type"] for exchange in EXCHANGES.values()}
    assert damaged == SERVED
