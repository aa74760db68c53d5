"""The two tensors with a row per token: padding that was not cut, and output layers that are some embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters import Hf2McoreOptions, MismatchError, NotComparable, Report, hf2mcore, mcore2hf, repair, verify

SAMPLED = 2
EMBED, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
Q = "model.language_model.layers.1.self_attn.q_proj.weight"

PADDED = (
    "2 tensors, exactly: the first 300 rows are A's; the {} more at B's end are vocabulary padding that was not cut"
)


def made(*, tied: bool = False, vocab: int = 300) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = tiny_config("qwen3_vl", tied=tied, text={"vocab_size": vocab})
    return config, tiny_weights(tiny_shapes(config))


def longer(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    noise = torch.randn((rows, tensor.shape[1]), generator=torch.Generator().manual_seed(0))
    return torch.cat([tensor, noise.to(tensor.dtype)])


def padded(hf: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    return hf | {name: longer(hf[name], rows) for name in (EMBED, HEAD)}


def write(directory: Path, config: dict[str, Any], hf: dict[str, torch.Tensor]) -> Path:
    write_tiny_hf(directory, config, tensors={name: tensor.clone() for name, tensor in hf.items()})
    return directory


def said(report: Report) -> list[str]:
    assert report.status == "different"
    return report.told.get("diagnosis", "").splitlines()


class TestPadding:
    def test_that_was_not_cut(self, tmp_path: Path) -> None:
        """config.json counts fewer tokens than there are rows: whatever their number, they are padding."""
        config, hf = made()
        a, b = write(tmp_path / "a", config, hf), write(tmp_path / "b", config, padded(hf, 20))
        report = verify(a, b)
        assert said(report) == [PADDED.format(20)]
        assert report.told["b_vocabulary"] == "config.json counts 300 tokens, and there are 320 rows: 20 too many"
        assert {(d.tensor, d.kind) for d in report.differences} == {(EMBED, "shape"), (HEAD, "shape")}
        assert said(verify(b, a))[0].endswith("the 20 more at A's end are vocabulary padding that was not cut")

    @pytest.mark.parametrize(
        ("more", "what"),
        [
            (84, "vocabulary padding that was not cut"),  # 384 = 3 x 128
            (212, "vocabulary padding that was not cut"),  # 512 = 128 x 4
            (83, "added tokens, or padding that was not cut"),
        ],
    )
    def test_that_config_json_counts(self, tmp_path: Path, more: int, what: str) -> None:
        """It may be tokens that were added, unless their number is that of a trainer's padding."""
        (config, hf), (long, _) = made(), made(vocab=300 + more)
        a, b = write(tmp_path / "a", config, hf), write(tmp_path / "b", long, padded(hf, more))
        assert said(verify(a, b)) == [PADDED.format(more).replace("vocabulary padding that was not cut", what)]

    def test_one_number_of_the_last_row_is_off(self, tmp_path: Path) -> None:
        config, hf = made()
        other = padded(hf, 20)
        other[HEAD] = other[HEAD].clone()
        other[HEAD][299, 63] *= 1.01
        exact, near = said(verify(write(tmp_path / "a", config, hf), write(tmp_path / "b", config, other)))
        assert exact.startswith("1 tensor, exactly: the first 300 rows are A's;")
        assert near.startswith(
            "1 tensor: the first 300 rows are a little off A's, as training leaves them; the 20 more"
        )

    def test_other_numbers_are_not_called_a_s(self, tmp_path: Path) -> None:
        config, hf = made()
        other = padded(hf | {EMBED: hf[EMBED].flip(0), HEAD: hf[HEAD].flip(0)}, 20)
        assert said(verify(write(tmp_path / "a", config, hf), write(tmp_path / "b", config, other))) == []

    def test_beside_another_fault_both_are_told(self, tmp_path: Path) -> None:
        config, hf = made()
        names = [Q, Q.replace("q_proj", "k_proj"), Q.replace("q_proj", "v_proj")]
        fused = torch.cat([torch.cat(part) for part in zip(*(hf[n].chunk(4) for n in names), strict=True)])
        other = padded(hf, 20) | dict(zip(names, fused.split([len(hf[n]) for n in names]), strict=True))
        found = said(verify(write(tmp_path / "a", config, hf), write(tmp_path / "b", config, other)))
        assert len(found) == 2 and "[qkv-groups-as-flat]" in found[1]

    def test_of_a_checkpoint_s_export(self, tmp_path: Path) -> None:
        """A checkpoint whose rows are padded for a trainer, and what a tool that does not cut them makes of it."""
        config, hf = made()
        good = write(tmp_path / "good", config, hf)
        hf2mcore(good, tmp_path / "mcore", Hf2McoreOptions(make_vocab_size_divisible_by=128))
        b = write(tmp_path / "b", config, padded(hf, 84))
        assert said(verify(tmp_path / "mcore", b)) == [PADDED.format(84)]

    def test_of_one_of_the_two_alone_is_refused(self, tmp_path: Path) -> None:
        config, hf = made()
        b = write(tmp_path / "b", config, hf | {EMBED: longer(hf[EMBED], 20)})
        with pytest.raises(NotComparable, match="the config makes it"):
            verify(write(tmp_path / "a", config, hf), b)

    def test_fewer_rows_than_tokens_are_refused(self, tmp_path: Path) -> None:
        config, hf = made()
        b = write(tmp_path / "b", config, hf | {name: hf[name][:280] for name in (EMBED, HEAD)})
        with pytest.raises(NotComparable, match="the config makes it"):
            verify(write(tmp_path / "a", config, hf), b)

    def test_a_round_trip_a_conversion_and_a_repair_refuse_it_still(self, tmp_path: Path) -> None:
        config, hf = made()
        a, b = write(tmp_path / "a", config, hf), write(tmp_path / "b", config, padded(hf, 20))
        with pytest.raises(NotComparable, match="the config makes it"):
            verify(b)
        with pytest.raises(MismatchError, match="the config makes it"):
            hf2mcore(b, tmp_path / "mcore")
        for options in ({"like": a}, {"undo": "qkv-groups-as-flat"}, {"like": a, "undo": "qkv-groups-as-flat"}):
            with pytest.raises(MismatchError, match="the config makes it"):
                repair(b, tmp_path / "out", **options)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists() and not (tmp_path / "mcore").exists()


class TestTied:
    OLD = "1 tensor, exactly: B's output layer is A's embedding and not B's own: a copy of a tied one, left behind"

    def test_a_copy_that_was_left_behind(self, tmp_path: Path) -> None:
        """B was trained on from A, and its output layer, which nothing trains, was written as it was."""
        config, hf = made(tied=True)
        b = write(tmp_path / "b", config, hf | {EMBED: hf[EMBED] * 1.01, HEAD: hf[EMBED]})
        report = verify(write(tmp_path / "a", config, hf), b)
        assert said(report) == [
            self.OLD,
            "1 tensor: all numbers are a little off, as training leaves them; relative to A 0.0099",
        ]
        (warning,) = report.warnings
        assert warning.startswith("B: the model is tied, but its output layer is no copy of its embedding: 19")
        assert warning.endswith("transformers 5 takes it, transformers 4.57 and vLLM drop it: two models")
        turned = verify(b, tmp_path / "a")
        assert said(turned)[0] == self.OLD.replace("B's", "X's").replace("A's", "B's").replace("X's", "A's")

    def test_all_else_being_equal(self, tmp_path: Path) -> None:
        config, hf = made(tied=True)
        b = write(tmp_path / "b", config, hf | {HEAD: hf[EMBED] * 0.99})
        report = verify(write(tmp_path / "a", config, hf), b)
        assert said(report) == [
            "1 tensor: B's output layer is near B's own embedding, and no copy of it: they were trained apart"
        ]
        assert [(d.tensor, d.kind) for d in report.differences] == [(HEAD, "only in B")] and report.warnings

    def test_an_output_layer_of_its_own(self, tmp_path: Path) -> None:
        """Nothing is said but that it is no copy."""
        config, hf = made(tied=True)
        b = write(tmp_path / "b", config, hf | {HEAD: hf[EMBED].flip(0)})
        report = verify(write(tmp_path / "a", config, hf), b)
        assert said(report) == [] and "no copy of its embedding" in report.warnings[0]

    def test_a_sound_copy_is_the_same(self, tmp_path: Path) -> None:
        config, hf = made(tied=True)
        report = verify(write(tmp_path / "a", config, hf), write(tmp_path / "b", config, hf | {HEAD: hf[EMBED]}))
        assert report.status == "same" and not report.warnings

    def test_against_one_that_is_not_tied(self, tmp_path: Path) -> None:
        config, hf = made(tied=True)
        a, other = write(tmp_path / "a", config, hf), hf | {HEAD: hf[EMBED]}
        b = write(tmp_path / "b", made()[0], other)
        assert said(verify(a, b)) == ["1 tensor, exactly: B's output layer is a copy of B's own embedding, as if tied"]
        c = write(tmp_path / "c", made()[0], other | {EMBED: hf[EMBED] * 1.01})
        assert said(verify(a, c))[0] == self.OLD

    def test_of_two_that_hold_one_it_is_refused(self, tmp_path: Path) -> None:
        """As equal as they are: A is untied and B says it is tied, or both are two models by themselves."""
        config, hf = made(tied=True)
        other = hf | {HEAD: hf[EMBED] * 0.99}
        b = write(tmp_path / "b", config, other)
        for tied in (True, False):
            a = write(tmp_path / f"tied {tied}", made(tied=tied)[0], other)
            with pytest.raises(NotComparable, match="no copy of its embedding"):
                verify(a, b)

    def test_of_a_checkpoint_s_export(self, tmp_path: Path) -> None:
        config, hf = made(tied=True)
        hf2mcore(write(tmp_path / "good", config, hf), tmp_path / "mcore")
        b = write(tmp_path / "b", config, hf | {HEAD: hf[EMBED].flip(1)})
        report = verify(tmp_path / "mcore", b)
        assert [(d.tensor, d.kind) for d in report.differences] == [(HEAD, "only in B")]
        with pytest.raises(NotComparable, match="no copy of its embedding"):
            verify(b)
        mcore2hf(tmp_path / "mcore", tmp_path / "c")
        assert verify(tmp_path / "c", tmp_path / "good").status == "same"

    def test_programs_are_told_both(self, tmp_path: Path) -> None:
        config, hf = made(tied=True)
        report = verify(write(tmp_path / "a", config, hf), write(tmp_path / "b", config, hf | {HEAD: hf[EMBED] * 0.99}))
        told = json.loads(json.dumps(report.as_dict()))
        assert [one["name"] for one in told["diagnosis"]] == ["tied copy"] and told["diagnosis"][0]["tensors"] == [HEAD]
