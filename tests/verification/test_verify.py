"""verify: what counts as the same, how a difference is told, and that nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import write_hf, write_reference
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import Difference, Hf2McoreOptions, Report, VerifyOptions, hf2mcore, verify
from vlconv.converters.errors import NotComparable
from vlconv.converters.verification import round_trip

Tensors = dict[str, torch.Tensor]

NORM = "model.language_model.norm.weight"
POSITIONS = "model.visual.pos_embed.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
MCORE_EMBEDDING = "language_model.embedding.word_embeddings.weight"

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
}


def elements(hf: Tensors) -> int:
    return sum(tensor.numel() for tensor in hf.values())


def tree(path: Path) -> dict[str, int]:
    """Everything below a directory; of files the time of the last change."""
    return {str(p.relative_to(path)): p.stat().st_mtime_ns if p.is_file() else 0 for p in path.rglob("*")}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By the name of a config, a folder with `mcore`, padded, and `huggingface`, a whole model of the same tensors.

    To be read only.
    """
    root = tmp_path_factory.mktemp("shelf")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
            write_hf(root / name / "huggingface", config, hf)
            save(root / name / "mcore", config, hf, Topology(tp=2), padded=True)
        return root / name

    return folder


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, shelf: Callable[[str], Path]) -> dict[str, Path]:
    """One model with noise in 8 rows of padding, with zeros in 8 and in 264, and without."""
    sides = {"hf": shelf("dense") / "huggingface", "noise": shelf("dense") / "mcore"}
    for name, divisor in (("none", None), ("zeros", 256), ("more zeros", 512)):
        sides[name] = tmp_path_factory.mktemp("sides") / name
        hf2mcore(sides["hf"], sides[name], Hf2McoreOptions(make_vocab_size_divisible_by=divisor))
    return sides


@pytest.fixture
def hf_pair(tmp_path: Path) -> Callable[..., Report]:
    """Writes two Hugging Face directories, the second changed in place by a function, and verifies one against the
    other.
    """

    def compared(
        change: Callable[[Tensors], None] = lambda tensors: None, start: Tensors | None = None, **options: Any
    ) -> Report:
        first = start or random_hf_tensors(tiny())
        second = {name: tensor.clone() for name, tensor in first.items()}
        change(second)
        a, b = write_hf(tmp_path / "a", tiny(), first), write_hf(tmp_path / "b", tiny(), second, shards=3)
        return verify(a, b, VerifyOptions(**options))

    return compared


class TestSame:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_mcore_and_hf(self, shelf: Callable[[str], Path], name: str) -> None:
        """Either first; the Hugging Face side serves as reference."""
        hf, folder = random_hf_tensors(CONFIGS[name]), shelf(name)
        before = tree(folder)
        for pair in (("mcore", "huggingface"), ("huggingface", "mcore")):
            report = verify(*(folder / side for side in pair))
            assert (report.status, report.differences) == ("same", [])
            assert (report.data["tensors"], report.data["elements"]) == (len(hf), elements(hf))
            assert report.result == f"same: {len(hf)} tensors, {elements(hf):,} elements, bit for bit"
            assert "where" not in report.told
        assert tree(folder) == before

    def test_two_topologies_of_one_model(self, tmp_path: Path, shelf: Callable[[str], Path]) -> None:
        hf = random_hf_tensors(tiny())
        write_reference(tmp_path / "huggingface", tiny())
        other = save(tmp_path / "other", tiny(), hf, Topology(tp=4), "per_layer", args=False)
        report = verify(shelf("dense") / "mcore", other)
        assert (report.status, report.differences) == ("same", [])
        assert report.data["elements"] == elements(hf)
        assert (report.data["a"]["padding_rows"], report.data["b"]["padding_rows"]) == (8, 0)

    def test_a_nan_is_the_same_nan(self, hf_pair: Callable[..., Report]) -> None:
        start = random_hf_tensors(tiny())
        start[NORM].view(torch.int16)[7] = 0x7FC1
        assert hf_pair(start=start).status == "same"

    def test_shards_and_dialects_are_no_difference(self, tmp_path: Path) -> None:
        config = tiny(moe=True)
        hf = random_hf_tensors(config)
        theirs = {
            name: tensor.transpose(1, 2).contiguous() if ".mlp.experts." in name else tensor
            for name, tensor in hf.items()
        }  # as transformers 5 saves
        assert (
            verify(write_hf(tmp_path / "a", config, hf, shards=1), write_hf(tmp_path / "b", config, theirs)).status
            == "same"
        )


class TestDifferent:
    def test_values(self, hf_pair: Callable[..., Report]) -> None:
        """Every tensor that differs, with the count, the first index and the largest difference."""

        def change(tensors: Tensors) -> None:
            tensors[NORM][5] += 1
            for at, value in (((3, 9), 2.0), ((3, 8), -0.5), ((15, 31), 1.0)):
                tensors[POSITIONS][at] = value

        start = random_hf_tensors(tiny())
        start[NORM][5] = 0.25
        for at in ((3, 9), (3, 8), (15, 31)):
            start[POSITIONS][at] = 0.5
        report = hf_pair(change, start=start)
        assert report.status == "different"
        assert {d.tensor: d for d in report.differences} == {
            NORM: Difference(NORM, "values", 1, (5,), 1.0),
            POSITIONS: Difference(POSITIONS, "values", 3, (3, 8), 1.5),
        }

    def test_in_several_windows(self, hf_pair: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
        """The same table, put together from parts."""
        monkeypatch.setattr("vlconv.converters.verification.comparison.compare.WINDOW", 200)

        def change(tensors: Tensors) -> None:
            for row, value in ((40, 1.0), (90, -200.0), (200, 7.0)):
                tensors[EMBEDDING][row, 3] = value
            tensors[EMBEDDING][90, 4] = 1

        start = random_hf_tensors(tiny())
        start[EMBEDDING][:, 3:5] = 0.5
        assert hf_pair(change, start=start).differences == [Difference(EMBEDDING, "values", 4, (40, 3), 200.5)]

    def test_the_sign_of_zero(self, hf_pair: Callable[..., Report]) -> None:
        start = random_hf_tensors(tiny())
        start[NORM][0] = 0.0

        def change(tensors: Tensors) -> None:
            tensors[NORM][0] = -0.0

        assert hf_pair(change, start=start).differences == [Difference(NORM, "values", 1, (0,), 0.0)]

    def test_another_nan(self, hf_pair: Callable[..., Report]) -> None:
        start = random_hf_tensors(tiny())
        start[NORM].view(torch.int16)[7] = 0x7FC1

        def change(tensors: Tensors) -> None:
            tensors[NORM].view(torch.int16)[7] = 0x7FC2

        assert hf_pair(change, start=start).differences == [Difference(NORM, "values", 1, (7,), None, nan=1)]

    def test_is_told_by_parts(self, hf_pair: Callable[..., Report]) -> None:
        def change(tensors: Tensors) -> None:
            tensors[NORM][:2] += 0.5
            tensors[NORM].view(torch.int16)[7] = 0x7FC2
            tensors[EMBEDDING][0, 0] += 2

        report = hf_pair(change)
        language = [name for name in random_hf_tensors(tiny()) if not name.startswith("model.visual.")]
        total = report.data["tensors"]
        assert report.result == f"different: 2 of {total} tensors"
        told = report.told["where"]
        assert told.startswith(f"language model: 2 of {len(language)} tensors differ, at most 2")
        assert told.endswith(", 1 NaN; vision tower: same")
        assert report.data["parts"]["vision tower"] == {
            "tensors": total - len(language),
            "different": 0,
            "max_abs": None,
            "nan": 0,
        }

    def test_in_the_tower_by_its_name_in_megatron(self, tmp_path: Path, shelf: Callable[[str], Path]) -> None:
        hf = random_hf_tensors(tiny())
        hf[POSITIONS][0, 0] += 1
        report = verify(shelf("dense") / "mcore", write_hf(tmp_path / "hf", tiny(), hf))
        assert report.told["where"].startswith("language model: same; vision tower: 1 of ")

    def test_other_dtypes_of_equal_values_can_be_accepted(self, hf_pair: Callable[..., Report]) -> None:
        def change(tensors: Tensors) -> None:
            tensors[NORM] = tensors[NORM].float()

        report = hf_pair(change)
        assert [step.command for step in report.steps] == ["--values"]

    def test_in_mcore_against_hf(self, tmp_path: Path, shelf: Callable[[str], Path]) -> None:
        """The difference is named as on the Hugging Face side."""
        hf, name = random_hf_tensors(tiny()), "model.language_model.layers.3.self_attn.v_proj.weight"
        hf[name][-1, -1] += 1
        report = verify(shelf("dense") / "mcore", write_hf(tmp_path / "hf", tiny(), hf))
        assert report.status == "different"
        assert [(d.tensor, d.kind, d.count, d.first) for d in report.differences] == [(name, "values", 1, (63, 63))]

    def test_tensors_on_one_side(self, tmp_path: Path) -> None:
        one, other = tiny(), tiny(tied=True)
        hf = random_hf_tensors(one)
        a = write_hf(tmp_path / "a", one, hf)
        b = write_hf(tmp_path / "b", other, {n: t for n, t in hf.items() if n != "lm_head.weight"})
        assert verify(a, b).differences == [Difference("lm_head.weight", "only in A")]
        assert verify(b, a).differences == [Difference("lm_head.weight", "only in B")]

    def test_shapes(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(tied=True))
        a = write_hf(tmp_path / "a", tiny(tied=True), hf)
        b = write_hf(tmp_path / "b", tiny(tied=True, vocab=240), {**hf, EMBEDDING: hf[EMBEDDING][:240].clone()})
        report = verify(a, b)
        assert report.status == "different"
        assert report.differences == [Difference(EMBEDDING, "shape", note="[248, 64] and [240, 64]")]


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_wider_but_equal(self, hf_pair: Callable[..., Report], dtype: torch.dtype) -> None:
        def change(tensors: Tensors) -> None:
            tensors[NORM] = tensors[NORM].to(dtype)

        report = hf_pair(change)
        assert report.status == "different"
        note = f"bfloat16 and {str(dtype).removeprefix('torch.')}, equal after exact widening"
        assert report.differences == [Difference(NORM, "dtype", note=note)]

    def test_values_accepts_it(self, hf_pair: Callable[..., Report]) -> None:
        def change(tensors: Tensors) -> None:
            for name in tensors:
                tensors[name] = tensors[name].float()

        assert hf_pair(change, values=True).status == "same"

    def test_bfloat16_and_float16(self, hf_pair: Callable[..., Report]) -> None:
        """Neither holds the other, float32 holds both."""
        start = random_hf_tensors(tiny())
        start[NORM] = torch.full_like(start[NORM], 1.5)

        def change(tensors: Tensors) -> None:
            tensors[NORM] = tensors[NORM].half()
            tensors[NORM][9] += 2**-10

        report = hf_pair(change, start=start, values=True)
        assert report.differences == [
            Difference(
                NORM,
                "dtype",
                1,
                (9,),
                2.0**-10,
                "bfloat16 and float16, not equal after exact widening, A's are B's numbers, rounded to bfloat16",
            )
        ]

    def test_values_refuses_other_numbers(self, hf_pair: Callable[..., Report]) -> None:
        def change(tensors: Tensors) -> None:
            tensors[NORM] = tensors[NORM].float()
            tensors[NORM][2] += 2**-20

        report = hf_pair(change, values=True)
        assert report.status == "different"
        assert [(d.tensor, d.kind, d.count, d.first) for d in report.differences] == [(NORM, "dtype", 1, (2,))]
        assert report.differences[0].note.endswith(
            "not equal after exact widening, A's are B's numbers, rounded to bfloat16"
        )


class TestPadding:
    """Rows behind the vocabulary hold anything; they are compared where both sides have them."""

    def test_rows_on_both_sides_count(self, sides: dict[str, Path]) -> None:
        report = verify(sides["noise"], sides["zeros"])
        assert report.status == "different"
        assert {(d.tensor, d.kind, d.first) for d in report.differences} == {
            (MCORE_EMBEDDING, "values", (248, 0)),
            ("language_model.output_layer.weight", "values", (248, 0)),
        }
        assert [d.count for d in report.differences] == [8 * 64] * 2
        report = verify(sides["more zeros"], sides["noise"])
        assert [d.count for d in report.differences] == [8 * 64] * 2
        assert verify(sides["zeros"], sides["more zeros"]).status == "same"

    def test_of_another_vocabulary(self, tmp_path: Path) -> None:
        """What is padding on one side is none, or nothing, on the other: only the shapes are told."""
        for name, rows in (("a", 248), ("b", 120)):
            write_reference(tmp_path / name / "huggingface", tiny(vocab=rows))
            save(
                tmp_path / name / "ckpt", tiny(vocab=rows), random_hf_tensors(tiny(vocab=rows)), Topology(), padded=True
            )
        report = verify(tmp_path / "a", tmp_path / "b")
        assert {(d.tensor, d.kind, d.note) for d in report.differences if d.kind != "values"} == {
            (EMBEDDING, "shape", "[248, 64] and [120, 64]"),
            ("lm_head.weight", "shape", "[248, 64] and [120, 64]"),
        }

    def test_rows_on_one_side_do_not(self, sides: dict[str, Path]) -> None:
        for other in ("none", "hf"):
            assert verify(sides["noise"], sides[other]).status == "same"


class TestRoundTrip:
    @pytest.mark.parametrize("on_disk", [False, True])
    @pytest.mark.parametrize("name", CONFIGS)
    def test_of_mcore(self, tmp_path: Path, shelf: Callable[[str], Path], name: str, on_disk: bool) -> None:
        report = self.leaves_nothing(tmp_path, shelf(name), "mcore", on_disk)
        assert report.data["elements"] == elements(random_hf_tensors(CONFIGS[name]))  # the padding does not come back

    @pytest.mark.parametrize("on_disk", [False, True])
    @pytest.mark.parametrize("name", CONFIGS)
    def test_of_hf(self, tmp_path: Path, shelf: Callable[[str], Path], name: str, on_disk: bool) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        report = self.leaves_nothing(tmp_path, shelf(name), "huggingface", on_disk)
        assert (report.data["tensors"], report.data["elements"]) == (len(hf), elements(hf))

    def leaves_nothing(self, place: Path, folder: Path, side: str, on_disk: bool) -> Report:
        before = tree(folder)
        report = verify(folder / side, None, VerifyOptions(on_disk=place if on_disk else None))
        assert list(place.iterdir()) == []
        assert tree(folder) == before
        assert (report.status, report.differences) == ("same", [])
        assert report.data["round_trip"] == ("on disk" if on_disk else "in memory")
        assert "that the layout is right" in report.told["not_proven"]
        return report

    def test_on_disk_writes_and_reads_both(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bit that changes on the way shows: the files are what is compared."""
        source = write_hf(tmp_path / "hf", tiny(), random_hf_tensors(tiny()))
        real = round_trip.mcore2hf

        def spoiling(source: Path, target: Path, *rest: Any) -> Report:
            report = real(source, target, *rest)
            file = target / "model.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
            return report

        monkeypatch.setattr(round_trip, "mcore2hf", spoiling)
        report = verify(source, None, VerifyOptions(on_disk=tmp_path))
        assert [d.count for d in report.differences] == [1]

    def test_a_failure_on_disk_leaves_nothing_either(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(
            tiny(), float32=["model.language_model.layers.2.self_attn.q_norm.weight"]
        )  # layers that cannot be stacked
        source = write_hf(tmp_path / "hf", tiny(), hf)
        before = tree(tmp_path)
        with pytest.raises(NotComparable, match="differ"):
            verify(source, None, VerifyOptions(on_disk=tmp_path))
        assert tree(tmp_path) == before

    def test_padding_that_only_the_user_explains(self, tmp_path: Path) -> None:
        write_reference(tmp_path / "huggingface", tiny())
        source = save(tmp_path / "mcore", tiny(vocab=280), random_hf_tensors(tiny(vocab=280)), Topology(), args=False)
        for on_disk in (None, tmp_path):
            assert (
                verify(source, None, VerifyOptions(on_disk=on_disk, make_vocab_size_divisible_by=56)).status == "same"
            )


class TestNotComparable:
    def test_another_model(self, tmp_path: Path) -> None:
        a = write_hf(tmp_path / "a", tiny(), random_hf_tensors(tiny()))
        b = write_hf(tmp_path / "b", tiny_2_5(), random_hf_tensors(tiny_2_5()))
        with pytest.raises(NotComparable, match="A is a qwen3_vl, B a qwen2_5_vl"):
            verify(a, b)

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(NotComparable, match="no Megatron checkpoint"):
            verify(tmp_path, tmp_path)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        """Not 'different': what a damaged file held is not known."""
        hf = random_hf_tensors(tiny())
        source = save(tmp_path / "mcore", tiny(), hf, Topology())
        write_reference(tmp_path / "huggingface", tiny())
        first = hf[EMBEDDING].view(torch.uint8).numpy().tobytes()[:64]
        (file,) = [file for file in source.glob("*.distcp") if first in file.read_bytes()]
        data = bytearray(file.read_bytes())
        data[data.find(first) + 5] ^= 4
        file.write_bytes(data)
        with pytest.raises(NotComparable, match="damaged: CRC-32"):
            verify(source)

    def test_on_disk_goes_with_one_side(self, tmp_path: Path) -> None:
        a = write_hf(tmp_path / "a", tiny(), random_hf_tensors(tiny()))
        with pytest.raises(NotComparable, match="Leave B out"):
            verify(a, a, VerifyOptions(on_disk=tmp_path))


class TestCommand:
    """Exit codes and the JSON document of the real thing."""

    def ask(self, *args: Any) -> tuple[int, dict[str, Any]]:
        shown = CliRunner().invoke(app, ["verify", *map(str, args), "--json"])
        return shown.exit_code, json.loads(shown.stdout)

    def test_same_different_and_neither(self, tmp_path: Path, shelf: Callable[[str], Path]) -> None:
        hf = random_hf_tensors(tiny())
        mcore = shelf("dense") / "mcore"
        code, document = self.ask(mcore, shelf("dense") / "huggingface")
        assert (code, document["status"], document["differences"]) == (0, "same", [])
        hf[NORM][3] += 1
        hf[POSITIONS] = hf[POSITIONS].float()
        b = write_hf(tmp_path / "b", tiny(), hf)
        code, document = self.ask(mcore, b)
        assert (code, document["status"]) == (1, "different")
        assert {d["tensor"]: (d["kind"], d["count"], d["first"]) for d in document["differences"]} == {
            NORM: ("values", 1, [3]),
            POSITIONS: ("dtype", 0, []),
        }
        code, document = self.ask(mcore, tmp_path / "nothing")
        assert (code, document["status"]) == (3, "not comparable"), document
        code, document = self.ask(mcore, b, "--dry-run")
        assert (code, document["status"]) == (0, "planned")

    def test_round_trips(self, tmp_path: Path) -> None:
        hf = write_hf(tmp_path / "hf", tiny(), random_hf_tensors(tiny()))
        before = tree(tmp_path)
        assert [self.ask(hf, *more)[0] for more in ([], ["--on-disk"])] == [0, 0]
        assert tree(tmp_path) == before
