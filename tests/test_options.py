"""Options objects: one spelling of each value inside, several outside; what cannot be is refused when they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlconv import converters
from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    OptionError,
    VerifyOptions,
    VlconvError,
)


@pytest.mark.parametrize("spelled", ["bf16", "BF16", "bfloat16"])
def test_a_dtype_has_several_names(spelled: str) -> None:
    for kind in (Mcore2HfOptions, Hf2McoreOptions, Mcore2McoreOptions):
        assert kind(dtype=spelled).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("spelled", "nbytes"),
    [("5GB", 5 * 10**9), ("500mb", 5 * 10**8), ("1.5 kB", 1500), ("1000B", 1000), ("1KiB", 1024), (7, 7)],
)
def test_a_size_is_a_number_or_text(spelled: int | str, nbytes: int) -> None:
    assert Mcore2HfOptions(max_shard_size=spelled).shard_bytes == nbytes


def test_paths_may_be_text_or_path() -> None:
    assert Mcore2HfOptions(reference=Path("r")).reference == "r"
    assert VerifyOptions(references=("r", Path("s"))).references == ("r", "s")
    assert VerifyOptions(references="r").references == ("r",)  # type: ignore[arg-type]
    assert VerifyOptions(on_disk="d").on_disk == Path("d")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Mcore2HfOptions, {"dtype": "int8"}, "--dtype 'int8' is none of bfloat16"),
        (Mcore2HfOptions, {"dtype": 16}, "--dtype 16 is none of"),
        (Mcore2HfOptions, {"max_shard_size": "5XB"}, "--max-shard-size '5XB' is no size"),
        (Mcore2HfOptions, {"max_shard_size": 0}, "--max-shard-size 0 is no size"),
        (Mcore2HfOptions, {"max_shard_size": True}, "is no size"),
        (Mcore2HfOptions, {"max_shard_size": 2.5}, "is no size"),
        (
            Mcore2HfOptions,
            {"max_shard_size": "2"},
            "--max-shard-size '2' has no unit\nWrite 2GB, 2MB or, for bytes, 2B",
        ),
        (Mcore2HfOptions, {"memory": " 1.5 "}, "--memory ' 1.5 ' has no unit\nWrite 1.5GB"),
        (Mcore2HfOptions, {"memory": "0"}, "is no size"),
        (Mcore2HfOptions, {"max_shard_size": "9" * 400}, "is no size"),
        (Mcore2HfOptions, {"threads": 0}, "--threads 0 is no whole number from 1"),
        (Mcore2HfOptions, {"threads": 1.5}, "--threads 1.5 is no whole number"),
        (Mcore2HfOptions, {"iteration": -1}, "--iteration -1 is no whole number from 0"),
        (Mcore2HfOptions, {"experts": "transformers-5"}, "--experts 'transformers-5' is none of hub, per-expert"),
        (Mcore2HfOptions, {"hf_names": "newer"}, "--hf-names"),
        (Hf2McoreOptions, {"experts_form": "?"}, "--experts-form"),
        (Hf2McoreOptions, {"format": "zarr"}, "--format 'zarr' is none of torch_dist, torch"),
        (Hf2McoreOptions, {"as_iteration": 0}, "--as-iteration 0"),
        (Hf2McoreOptions, {"make_vocab_size_divisible_by": 0}, "--make-vocab-size-divisible-by 0"),
        (Hf2McoreOptions, {"tensor_model_parallel_size": 2}, "torch_dist is loaded at any topology"),
        (Hf2McoreOptions, {"format": "torch", "per_layer": True}, "--per-layer"),
        (Hf2McoreOptions, {"set_latest": True}, "--set-latest"),
        (Mcore2HfOptions, {"adapter_experts": "per-expert"}, "--adapter-experts is about an adapter"),
        (Mcore2HfOptions, {"adapter": True, "adapter_experts": "hub"}, "--adapter-experts 'hub' is none of"),
        (Mcore2HfOptions, {"adapter": True, "push": "me/mine"}, "--push uploads models"),
        (Mcore2HfOptions, {"adapter": True, "fp8_like": "x"}, "--fp8-like is about a whole model"),
        (Mcore2HfOptions, {"adapter": True, "experts": "per-expert"}, "--experts is about a whole model"),
        (Hf2McoreOptions, {"adapter": True, "mtp": "drop"}, "--mtp is about a whole model"),
        (Hf2McoreOptions, {"adapter": True, "make_vocab_size_divisible_by": 128}, "is about a whole model"),
        (Hf2McoreOptions, {"base": "x"}, "--base is about a source that is an adapter"),
        (Hf2McoreOptions, {"adapter": True, "format": "torch"}, "--adapter is written as torch_dist"),
        (VerifyOptions, {"witness": "me"}, "--witness 'me' is none of megatron-core, transformers"),
    ],
)
def test_what_cannot_be_is_refused_at_once(kind: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says) as fault:
        kind(**values)
    assert fault.value.exit_code == 2 and isinstance(fault.value, ValueError)


def test_every_error_can_be_caught_by_its_name() -> None:
    from vlconv.converters import errors

    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, VlconvError)}
    assert tree <= set(converters.__all__)


def test_functions_take_text_for_paths(tmp_path: Path) -> None:
    with pytest.raises(converters.NotACheckpoint, match="nowhere"):
        converters.mcore2hf(str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_prefixes_to_carry_are_one_or_many() -> None:
    assert Mcore2HfOptions(carry="model.visual.").carry == ("model.visual.",)  # type: ignore[arg-type]
    assert Mcore2HfOptions(carry=("a.", "b.", "a.")).carry == ("a.", "b.")
    with pytest.raises(OptionError, match="no beginning of tensors' names"):
        Mcore2HfOptions(carry=("a.", ""))


def test_what_is_asked_of_a_head_is_known() -> None:
    for kind in (Mcore2HfOptions, Mcore2McoreOptions, VerifyOptions):
        assert kind(mtp="carry").mtp == "carry"
        with pytest.raises(OptionError, match="--mtp 'keep' is none of require, carry, drop"):
            kind(mtp="keep")
    with pytest.raises(OptionError, match="a Hugging Face source has none"):
        Hf2McoreOptions(mtp="carry")  # type: ignore[arg-type]
    assert VerifyOptions(mtp="carry", carry=("a.",)).source(1).carry == ("a.",)
    assert (VerifyOptions(mtp="carry").mtp_of_hf, VerifyOptions(mtp="drop").mtp_of_hf) == (None, "drop")
