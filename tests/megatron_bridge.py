"""run_config.yaml and the checkpoint beside it, found and read as Megatron-Bridge 0.2.1 to 0.7 does.

No part of Megatron-Bridge is needed.

transformers' classes and torch's names are the real ones; a provider stands for itself with the fields it was given.
fixtures/megatron_bridge_providers.json was read off Megatron-Bridge itself: `fields` are the dataclass fields that a
provider has in every one of `versions`; `values` are those of the provider that `AutoBridge.from_hf_config` of 0.6.2
makes of a release's config.json, where they differ from the class's defaults or are such that vlconv writes.
"""

from __future__ import annotations

import json
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "megatron_bridge_providers.json").read_text())
VALUES: dict[str, dict[str, Any]] = FIXTURE["values"]
EXPORTED = "megatron.bridge.models.qwen_vl."
ALLOWED = ("megatron.", "torch.", "nvidia.", "transformers.", "numpy.", "nemo.")


def loaded_by_auto_bridge(directory: Path) -> Path:
    """The folder that `AutoBridge.load_megatron_model(DIR)` and `export_ckpt(DIR, …)` take.

    The `iter_*` with the largest number, and DIR itself where there is none.
    """
    numbered = [child for child in directory.iterdir() if child.is_dir() and child.name.startswith("iter_")]
    return max(numbered, key=lambda folder: int(folder.name.removeprefix("iter_"))) if numbered else directory


def loaded_by_training(directory: Path) -> tuple[Path, bool]:
    """The folder that `checkpoint.load=DIR` takes by Megatron-LM's tracker file, and whether it is a release."""
    word = (directory / "latest_checkpointed_iteration.txt").read_text().strip()
    if word == "release":
        return directory / "release", True
    assert int(word) > 0, "Megatron-Bridge refuses a tracker of 0"
    return directory / f"iter_{int(word):07d}", False


def run_config(folder: Path) -> dict[str, Any]:
    """What `read_run_config` gives; training reads these keys of it whatever it does next."""
    parsed: dict[str, Any] = yaml.safe_load((folder / "run_config.yaml").read_text())
    model, checkpoint = parsed["model"], parsed["checkpoint"]
    assert all(type(model[f"{axis}_model_parallel_size"]) is int for axis in ("tensor", "pipeline"))
    assert all(type(checkpoint[key]) is bool for key in ("save_optim", "save_rng", "fully_parallel_save"))
    return parsed


def provider(folder: Path) -> SimpleNamespace:
    """What `load_model_config` builds of it."""
    built = instantiate(run_config(folder)["model"])
    assert isinstance(built, SimpleNamespace), "the model section names no provider"
    return built


def instantiate(node: Any) -> Any:
    """A `_target_` is called with the other keys, or only named with `_call_: false`."""
    if isinstance(node, list):
        return [instantiate(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: instantiate(value) for key, value in node.items()}
    target = node["_target_"]
    assert target.startswith(ALLOWED), f"{target} is not on the list of allowed modules"
    assert not any(part.startswith("_") for part in target.split(".")), f"{target} is private"
    if node.get("_call_", True) is False:
        assert node.keys() == {"_target_", "_call_"}, "nothing goes with a name that is not called"
        return located(target)
    given = {key: instantiate(value) for key, value in node.items() if key not in ("_target_", "_call_")}
    return _provider(target, given) if target.startswith("megatron.bridge.") else _called(located(target), given)


def _called(function: Any, given: dict[str, Any]) -> Any:
    parameters = signature(function).parameters
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert not given.keys() - parameters.keys(), f"{function} knows no {given.keys() - parameters.keys()}: dropped"
    return function(**given)


def located(target: str) -> Any:
    """The longest part of a dotted name that is a module, and the rest from there on."""
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ImportError(target)


def _provider(target: str, given: dict[str, Any]) -> SimpleNamespace:
    name = target.removeprefix(EXPORTED)
    assert name in FIXTURE["fields"], f"{target} is not what the package exports in every version"
    unknown = given.keys() - {*FIXTURE["fields"]["all"], *FIXTURE["fields"][name]}
    assert not unknown, f"{name} has no {sorted(unknown)} in some version, and drops them"
    return SimpleNamespace(provider=name, **given)
