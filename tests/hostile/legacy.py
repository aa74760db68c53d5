"""Rank files: sets that no trainer writes, ranks in each other's places, and files that lie of themselves."""

from __future__ import annotations

import re
import shutil
from typing import Any

import torch

from .case import Kind, Work, either, equal, refused, warned
from .files import MODEL, edit_legacy, every_rank, rewrite_pickle, rewrite_zip

LEGACY = Kind("legacy", "legacy")
BOTH = ("legacy", "legacy_moe")
_LAYER = "language_model.decoder.layers.0"


def rank(work: Work, tp: int, other: int) -> Any:
    return work.data / f"mp_rank_{tp:02d}_{other:03d}" / MODEL


@LEGACY.case("legacy", refused("mp_rank_01_001", "missing"))
def a_rank_is_missing(work: Work) -> None:
    shutil.rmtree(work.data / "mp_rank_01_001")


@LEGACY.case("legacy", refused("mp_rank_01_000", "missing"))
def half_of_the_tensor_ranks_are_missing(work: Work) -> None:
    for stage in range(2):
        shutil.rmtree(work.data / f"mp_rank_01_{stage:03d}")


@LEGACY.case("legacy", refused("mp_rank_00_001", "missing"))
def a_stage_is_missing(work: Work) -> None:
    for tp in range(2):
        shutil.rmtree(work.data / f"mp_rank_{tp:02d}_001")


@LEGACY.case("legacy_moe", refused("mp_rank_01_001"))
def an_expert_rank_is_missing(work: Work) -> None:
    shutil.rmtree(work.data / "mp_rank_01_001")


@LEGACY.case(BOTH, refused("mp_rank_02_000"))
def a_rank_too_many(work: Work) -> None:
    shutil.copytree(work.data / "mp_rank_01_000", work.data / "mp_rank_02_000")


@LEGACY.case(BOTH, refused("mp_rank_xx"))
def a_rank_of_no_number(work: Work) -> None:
    shutil.copytree(work.data / "mp_rank_01_000", work.data / "mp_rank_xx")


@LEGACY.case(BOTH, refused("mp_rank_00"))
def ranks_of_two_forms(work: Work) -> None:
    shutil.copytree(work.data / "mp_rank_01_000", work.data / "mp_rank_00")


@LEGACY.case(BOTH, refused("mp_rank_00_000", "mp_rank_01_000"))
def a_rank_copied_over_another(work: Work) -> None:
    """A copy script's slip: every sum is right."""
    shutil.copyfile(rank(work, 0, 0), rank(work, 1, 0))


@LEGACY.case("legacy", refused("mp_rank_00_001", "mp_rank_01_001"))
def a_rank_of_the_last_stage_copied_over_another(work: Work) -> None:
    shutil.copyfile(rank(work, 1, 1), rank(work, 0, 1))


@LEGACY.case("legacy", refused(("mp_rank", "language_model", "output layer")))
def a_stage_copied_over_another(work: Work) -> None:
    for tp in range(2):
        shutil.copyfile(rank(work, tp, 0), rank(work, tp, 1))


@LEGACY.case("legacy_moe", refused("mp_rank_00_000", "mp_rank_00_001"))
def an_expert_rank_copied_over_another(work: Work) -> None:
    for tp in range(2):
        shutil.copyfile(rank(work, tp, 0), rank(work, tp, 1))


@LEGACY.case("legacy_moe", refused("mp_rank_00_000", "mp_rank_01_000"))
def tensor_ranks_copied_over_all_others(work: Work) -> None:
    for other in range(2):
        shutil.copyfile(rank(work, 0, other), rank(work, 1, other))


@LEGACY.case("legacy", refused(("mp_rank", "language_model")))
def stages_exchanged(work: Work) -> None:
    for tp in range(2):
        first, second = rank(work, tp, 0), rank(work, tp, 1)
        first.rename(work.folder / "x")
        second.rename(first)
        (work.folder / "x").rename(second)


@LEGACY.case("legacy", refused(("mp_rank", "vision", "layers")))
def one_rank_of_each_stage_exchanged(work: Work) -> None:
    first, second = rank(work, 0, 0), rank(work, 0, 1)
    first.rename(work.folder / "x")
    second.rename(first)
    (work.folder / "x").rename(second)


@LEGACY.case("legacy", refused("different iterations"))
def a_rank_of_another_iteration(work: Work) -> None:
    edit_legacy(rank(work, 1, 0), lambda s: s.update(iteration=7))


@LEGACY.case("legacy", refused("mp_rank_01_000"))
def a_rank_whose_args_say_another_size(work: Work) -> None:
    edit_legacy(rank(work, 1, 0), lambda s: setattr(s["args"], "tensor_model_parallel_size", 4))


@LEGACY.case(BOTH, refused(("missing", "tensor parallel size 4")))
def args_that_say_another_size(work: Work) -> None:
    every_rank(work.data, lambda s: setattr(s["args"], "tensor_model_parallel_size", 4))


@LEGACY.case(BOTH, refused(("expert", "num_experts", "hidden", "args")))
def args_of_another_model(work: Work) -> None:
    every_rank(work.data, lambda s: vars(s["args"]).update(hidden_size=128, num_experts=8))


@LEGACY.case("legacy", equal())  # no number of layers: it is not read as one
def args_of_a_number_of_400_digits(work: Work) -> None:
    every_rank(work.data, lambda s: setattr(s["args"], "num_layers", 10**400))


@LEGACY.case("legacy", either("args"))
def args_of_a_number_that_is_none(work: Work) -> None:
    every_rank(work.data, lambda s: setattr(s["args"], "norm_epsilon", float("nan")))


@LEGACY.case("legacy", equal())
def args_of_nothing(work: Work) -> None:
    every_rank(work.data, lambda s: s.pop("args"))


@LEGACY.case("legacy", equal())
def args_of_text(work: Work) -> None:
    every_rank(work.data, lambda s: s.update(args="tensor_model_parallel_size=2"))


@LEGACY.case("legacy", equal())
def args_in_themselves(work: Work) -> None:
    every_rank(work.data, lambda s: setattr(s["args"], "again", s["args"]))


@LEGACY.case(BOTH, refused("mp_rank_00_000", "no model"))
def no_model_in_a_rank(work: Work) -> None:
    edit_legacy(rank(work, 0, 0), lambda s: s.pop("model"))


@LEGACY.case("legacy", refused("mp_rank_00_000"))
def a_model_that_is_a_list(work: Work) -> None:
    edit_legacy(rank(work, 0, 0), lambda s: s.update(model=list(s["model"])))


@LEGACY.case("legacy", refused("mp_rank_00_000"))
def a_model_in_itself(work: Work) -> None:
    edit_legacy(rank(work, 0, 0), lambda s: s["model"].update(more=s["model"]))


@LEGACY.case("legacy", refused("chunks"))
def another_number_of_chunks(work: Work) -> None:
    edit_legacy(rank(work, 1, 1), lambda s: s.update(model0=s.pop("model"), model1={}))


@LEGACY.case("legacy", refused("linear_fc2.weight"))
def a_tensor_is_missing_on_one_rank(work: Work) -> None:
    edit_legacy(rank(work, 1, 0), lambda s: s["model"].pop(f"{_LAYER}.mlp.linear_fc2.weight"))


@LEGACY.case("legacy", refused("linear_fc2.weight"))
def a_tensor_is_missing_on_all(work: Work) -> None:
    every_rank(work.data, lambda s: s["model"].pop(f"{_LAYER}.mlp.linear_fc2.weight"))


@LEGACY.case("legacy", refused("surplus"))
def a_tensor_too_many(work: Work) -> None:
    every_rank(work.data, lambda s: s["model"].update({"language_model.surplus.weight": torch.ones(3)}))


@LEGACY.case("legacy", refused("linear_fc1.weight"))
def a_tensor_of_another_shape(work: Work) -> None:
    name = f"{_LAYER}.mlp.linear_fc1.weight"
    edit_legacy(rank(work, 1, 0), lambda s: s["model"].update({name: torch.cat([s["model"][name]] * 2)}))


@LEGACY.case("legacy", refused("linear_fc1.weight"))
def a_tensor_of_another_dtype(work: Work) -> None:
    name = f"{_LAYER}.mlp.linear_fc1.weight"
    edit_legacy(rank(work, 1, 0), lambda s: s["model"].update({name: s["model"][name].half()}))


@LEGACY.case("legacy", refused("linear_fc1.weight", "int8"))
def a_quantised_tensor(work: Work) -> None:
    name = f"{_LAYER}.mlp.linear_fc1.weight"
    every_rank(work.data, lambda s: s["model"].update({name: s["model"][name].to(torch.int8)}))


@LEGACY.case(BOTH, refused("mp_rank_01_000"))
def a_digit_of_a_storage_key(work: Work) -> None:
    """Two tensors of one size come to lie in one storage."""
    path = rank(work, 1, 0)
    names = [f"language_model.decoder.layers.{layer}.self_attention.linear_proj.weight" for layer in (0, 1)]
    rewrite_pickle(path, lambda data: _one_storage(data, *names))


def _one_storage(data: bytes, first: str, second: str) -> bytes:
    """data.pkl in which the second tensor has the first one's storage key."""
    keys = re.compile(rb"X([\x01-\x05])\x00\x00\x00(\d+)[qr]", re.DOTALL)

    def key_after(name: str) -> Any:
        at = data.index(name.encode())
        return next(m for m in keys.finditer(data, at + len(name)))

    one, two = key_after(first), key_after(second)
    return data[: two.start(1)] + one[1] + b"\x00\x00\x00" + one[2] + data[two.end(2) :]


@LEGACY.case("legacy", refused("mp_rank_01_000"))
def two_names_of_one_tensor(work: Work) -> None:
    first, second = (f"vision_model.decoder.layers.{i}.self_attention.linear_proj.weight" for i in (0, 1))
    edit_legacy(rank(work, 1, 0), lambda s: s["model"].update({second: s["model"][first]}))


@LEGACY.case("legacy", refused("mp_rank_01_000"))
def views_that_overlap(work: Work) -> None:
    name = f"{_LAYER}.mlp.linear_fc1.weight"

    def change(state: dict[str, Any]) -> None:
        whole = torch.zeros(97 * 64 * 2, dtype=torch.bfloat16)
        other = name.replace(".0.", ".1.")
        rows = len(state["model"][name])
        state["model"][name], state["model"][other] = (
            whole[: rows * 64].view(rows, 64),
            whole[64 : (rows + 1) * 64].view(rows, 64),
        )

    edit_legacy(rank(work, 1, 0), change)


@LEGACY.case("legacy", equal())
def a_storage_that_nobody_refers_to(work: Work) -> None:
    rewrite_zip(rank(work, 1, 0), lambda m: [*m, (m[0][0].split("/")[0] + "/data/99999", b"x" * 100)])


@LEGACY.case("legacy", warned("q_layernorm.weight", "mp_rank_00_000", "mp_rank_01_000"))
def replicas_that_differ(work: Work) -> None:
    name = f"{_LAYER}.self_attention.q_layernorm.weight"
    edit_legacy(rank(work, 1, 0), lambda s: s["model"][name][3:5].add_(0.5))


@LEGACY.case("legacy", refused("q_layernorm.weight"), "--strict")
def replicas_that_differ_strict(work: Work) -> None:
    name = f"{_LAYER}.self_attention.q_layernorm.weight"
    edit_legacy(rank(work, 1, 0), lambda s: s["model"][name][3:5].add_(0.5))


@LEGACY.case("legacy", refused("mp_rank_00_000"))
def a_rank_that_is_a_file(work: Work) -> None:
    shutil.rmtree(work.data / "mp_rank_00_000")
    (work.data / "mp_rank_00_000").write_text("x")


@LEGACY.case("legacy", refused("mp_rank_00_000", MODEL))
def a_rank_without_its_file(work: Work) -> None:
    rank(work, 0, 0).rename(work.data / "mp_rank_00_000" / "other.pt")


@LEGACY.case("legacy", refused("mp_rank_01_000"))
def a_rank_that_is_a_link_to_another(work: Work) -> None:
    shutil.rmtree(work.data / "mp_rank_01_000")
    (work.data / "mp_rank_01_000").symlink_to("mp_rank_00_000")


@LEGACY.case("legacy", refused("mp_rank_00_000"))
def a_model_nested_a_thousand_deep(work: Work) -> None:
    def change(state: dict[str, Any]) -> None:
        inner: dict[str, Any] = {}
        for _ in range(300):
            inner = {"x": inner}
        state["model"]["deep"] = inner

    edit_legacy(rank(work, 0, 0), change)
