"""verify --witness:
megatron-core and transformers agree with vlconv's own readers, and where they would not it shows.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mcore.fill import whole
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Form, Topology
from references import write_hf, write_reference
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import Observer, Phase, Report, Silent, VerifyOptions, verify
from vlconv.converters.errors import NotComparable
from vlconv.converters.formats.chunks import ChunkReader
from vlconv.converters.tensors.spec import Box
from vlconv.converters.verification.witnesses import foreign, megatron_core, transformers
from vlconv.converters.verification.witnesses.megatron_core import MegatronReader

SAMPLED = 2

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
    "2.5 tied": tiny_2_5(tied=True),
}
OLD = version("transformers").startswith("4.")

NORM = "model.language_model.norm.weight"
FC1 = "language_model.decoder.layers.2.mlp.linear_fc1.weight"
EXPERTS = ".mlp.experts."


class Watch(Silent):
    """Remembers what an observer is told a command is at."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []

    def phase(self, phase: Phase) -> None:
        self.phases.append(phase)


def by(library: Any, directory: Path, observer: Observer | None = None, **options: Any) -> Report:
    return verify(directory, None, VerifyOptions(witness=library, **options), observer)


def global_state() -> list[object]:
    """What a witness might leave changed in the process."""
    import torch.distributed as dist
    from torch.distributed.checkpoint import FileSystemReader

    with foreign.quiet():
        import_module("megatron.core.dist_checkpointing.strategies.torch")
    functions = [
        torch.cuda.current_device,
        torch.cuda.synchronize,
        torch.Tensor.cuda,
        torch.load,
        FileSystemReader.read_metadata,
    ]
    return [dist.is_initialized(), [f[:3] for f in warnings.filters], *functions]


@pytest.fixture
def unchanged() -> Iterator[None]:
    """The process is as it was, a library's import aside."""
    before = global_state()
    yield
    assert global_state() == before


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stacked checkpoint of the dense model at TP2 x PP2, of padded vocabulary, with an optimizer.

    No test changes it.
    """
    folder = tmp_path_factory.mktemp("checkpoint")
    write_reference(folder / "huggingface", tiny())
    return save(folder / "mcore", tiny(), random_hf_tensors(tiny()), Topology(tp=2, pp=2), padded=True)


@pytest.mark.mcore_versions
@pytest.mark.usefixtures("unchanged")
class TestMegatronCore:
    @pytest.mark.parametrize(
        ("name", "form", "topology", "padding"),
        [
            ("dense", "stacked", Topology(tp=2, pp=2), 2 * 8),
            ("tied", "per_layer", Topology(tp=2, pp=2), 8),
            ("mixed", "singleton", Topology(tp=2, pp=2, ep=2), 2 * 8),
            ("moe", "stacked", Topology(tp=2, ep=2, etp=1), 2 * 8),
            ("2.5", "singleton", Topology(pp=2), 2 * 8),
        ],
    )
    def test_reads_the_same(self, tmp_path: Path, name: str, form: Form, topology: Topology, padding: int) -> None:
        config, hf = CONFIGS[name], random_hf_tensors(CONFIGS[name])
        write_reference(tmp_path / "huggingface", config)
        expected = whole(config, hf)
        report = by("megatron-core", save(tmp_path / "mcore", config, hf, topology, form, padded=True))
        assert (report.status, report.differences) == ("same", [])
        assert report.data["tensors"] == len(expected)
        assert report.data["elements"] == sum(t.numel() for t in expected.values()) + padding * config.text.hidden
        assert (report.data["witness"], report.data["witness_version"]) == ("megatron-core", version("megatron-core"))
        facts = report.told
        assert (
            "unpickles" in facts["witness"]
            and "padding rows" in facts["checks"]
            and "the layout" in facts["not_proven"]
        )

    def test_a_box_that_we_read_wrongly_is_seen(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Negative control: gate and up exchanged, as by a wrong chunk offset."""
        read = ChunkReader.read_into

        def swapped(self: ChunkReader, box: Box, out: Any) -> None:
            read(self, box, out)
            if box.name == FC1:
                out[:] = out[list(range(len(out) // 2, len(out))) + list(range(len(out) // 2))]

        monkeypatch.setattr(ChunkReader, "read_into", swapped)
        report = by("megatron-core", checkpoint)
        assert report.status == "different"
        (found,) = report.differences
        assert (found.tensor, found.kind, found.first) == (FC1, "values", (0, 0))
        assert 0.9 * 192 * 64 < found.count <= 192 * 64

    def test_what_megatron_does_not_load_is_seen(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory that held the right bytes a moment ago must not pass for a tensor that was loaded."""
        from megatron.core.dist_checkpointing.strategies.torch import TorchDistLoadShardedStrategy

        untouched = lambda _, parts, *__: {name: part.data for name, part in parts.items()}  # noqa: E731
        monkeypatch.setattr(TorchDistLoadShardedStrategy, "load", untouched)
        report = by("megatron-core", checkpoint)
        assert len(report.differences) == report.data["tensors"]

    def test_a_key_that_one_side_lacks_is_named(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        final = "language_model.decoder.final_layernorm.weight"
        monkeypatch.setattr(megatron_core, "ignorable", lambda name: name.startswith(("optimizer.", final)))
        report = by("megatron-core", checkpoint)
        assert [(d.tensor, d.kind) for d in report.differences] == [(final, "only in A")]

    def test_common_pt_is_not_needed(self, checkpoint: Path, tmp_path: Path) -> None:
        shutil.copytree(checkpoint.parent, tmp_path / "copy")
        (tmp_path / "copy" / "mcore" / "common.pt").unlink(missing_ok=True)  # there is none from megatron-core 0.19 on
        assert by("megatron-core", tmp_path / "copy" / "mcore").status == "same"

    def test_args_of_a_class_that_nobody_has(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such a common.pt is no reason not to read the weights, which lie elsewhere."""
        shutil.copytree(checkpoint.parent, tmp_path / "copy")
        gone = ModuleType("gone")
        gone.Setting = type("Setting", (), {"__module__": "gone"})  # type: ignore[attr-defined]
        with monkeypatch.context() as here:
            here.setitem(sys.modules, "gone", gone)
            args = Namespace(num_layers=tiny().text.layers, setting=gone.Setting())
            torch.save({"args": args}, tmp_path / "copy" / "mcore" / "common.pt")
        with pytest.raises(ImportError):
            torch.load(tmp_path / "copy" / "mcore" / "common.pt", weights_only=False)
        assert by("megatron-core", tmp_path / "copy" / "mcore").status == "same"

    def test_the_metadata_is_unpickled_once(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """megatron-core would for every tensor; of a large checkpoint each time takes seconds."""
        from torch.distributed.checkpoint import FileSystemReader

        read, times = FileSystemReader.read_metadata, []

        def counted(self: FileSystemReader, *args: Any, **kwargs: Any) -> Any:
            times.append(self.path)
            return read(self, *args, **kwargs)

        monkeypatch.setattr(FileSystemReader, "read_metadata", counted)
        assert by("megatron-core", checkpoint).status == "same"
        assert times == [checkpoint]

    def test_each_tensor_is_loaded_once_and_let_go(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though it is read in many windows by several threads."""
        loaded: list[str] = []
        held: list[int] = []
        load, finish = MegatronReader._load, MegatronReader.finish

        def counted(self: MegatronReader, name: str) -> Any:
            loaded.append(name)
            return load(self, name)

        def finished(self: MegatronReader) -> None:
            held.append(len(self._held))
            finish(self)

        monkeypatch.setattr(MegatronReader, "_load", counted)
        monkeypatch.setattr(MegatronReader, "finish", finished)
        monkeypatch.setattr("vlconv.converters.verification.comparison.compare.WINDOW", 2 * 1024)
        report = by("megatron-core", checkpoint, threads=4)
        assert report.status == "same"
        assert len(loaded) == len(set(loaded)) == report.data["tensors"]
        assert held == [0]

    def test_its_errors_are_one_line(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """torch gathers a rank's errors in an exception that is no Exception and begins with a traceback."""
        from torch.distributed.checkpoint import FileSystemReader

        def broken(*_: object) -> None:
            raise RuntimeError("the disk\x1b[2J burns\nand so on")

        monkeypatch.setattr(FileSystemReader, "read_data", broken)
        with pytest.raises(NotComparable) as caught:
            by("megatron-core", checkpoint)
        assert (
            caught.value.what
            == f"megatron-core {version('megatron-core')} does not read this: RuntimeError: the disk\\x1b[2J burns"
        )

    def test_an_interrupt_stays_one(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from torch.distributed.checkpoint import FileSystemReader

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(FileSystemReader, "read_data", interrupted)
        with pytest.raises(KeyboardInterrupt):
            by("megatron-core", checkpoint)

    def test_other_formats_are_refused(self, tmp_path: Path) -> None:
        write_reference(tmp_path / "huggingface", tiny())
        directory = save_legacy(tmp_path / "mcore", tiny(), random_hf_tensors(tiny()), Topology(tp=2))
        with pytest.raises(
            NotComparable, match="is Megatron torch, and megatron-core has a loader for torch_dist alone"
        ):
            by("megatron-core", directory)

    def test_a_process_group_of_somebody_else_is_left_alone(self, checkpoint: Path) -> None:
        import torch.distributed as dist

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            with pytest.raises(NotComparable, match="process group is there already"):
                by("megatron-core", checkpoint)
            assert dist.is_initialized()
        finally:
            dist.destroy_process_group()

    def test_from_the_command_line(self, checkpoint: Path) -> None:
        result = CliRunner().invoke(app, ["verify", str(checkpoint), "--witness", "megatron-core", "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["witness"] == "megatron-core"
        assert "FutureWarning" not in result.stderr

    def test_the_help_says_that_it_unpickles(self) -> None:
        help_text = " ".join(CliRunner().invoke(app, ["verify", "--help"], env={"COLUMNS": "200"}).output.split())
        assert "megatron-core (it unpickles: only for checkpoints you trust)" in help_text


def per_expert(hf: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each expert's matrices as tensors of their own, as some trainers save them."""
    tensors = {}
    for name, tensor in hf.items():
        stem, found, kind = name.partition(EXPERTS)
        parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(kind, ())
        if not found:
            tensors[name] = tensor
        for expert, one in enumerate(tensor if found else ()):
            for part, half in zip(parts, one.chunk(len(parts), dim=-1), strict=True):
                tensors[f"{stem}{EXPERTS}{expert}.{part}.weight"] = half.T.contiguous()
    return tensors


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Hugging Face directory: a name in CONFIGS, and what to do with its tensors before."""

    def write(
        name: str, change: Callable[[dict[str, torch.Tensor]], Any] = lambda hf: None, folder: str = "hf"
    ) -> Path:
        hf = random_hf_tensors(CONFIGS[name])
        changed = change(hf)
        return write_hf(tmp_path / folder, CONFIGS[name], hf if changed is None else changed)

    return write


@pytest.mark.versions
class TestTransformers:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_reads_the_same(self, made: Callable[..., Path], name: str) -> None:
        watch = Watch()
        report = by("transformers", made(name), watch)
        assert watch.phases == [Phase.LOADING, Phase.COMPARING]
        assert (report.status, report.differences, report.warnings) == ("same", [], [])
        hf = random_hf_tensors(CONFIGS[name])
        assert (report.data["tensors"], report.data["elements"]) == (len(hf), sum(prod(t.shape) for t in hf.values()))
        assert (report.data["witness_version"], report.data["witness_elements"]) == (version("transformers"), True)

    def test_the_new_prefixes(self, made: Callable[..., Path]) -> None:
        def respelled(hf: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {
                f"model.{n}" if n.startswith("visual.") else n.replace("model.", "model.language_model.", 1): t
                for n, t in hf.items()
            }

        assert by("transformers", made("2.5", respelled)).status == "same"

    def test_experts_as_transformers_5_saves_them(self, made: Callable[..., Path]) -> None:
        directory = made(
            "moe", lambda hf: {n: t.transpose(1, 2).contiguous() if EXPERTS in n else t for n, t in hf.items()}
        )
        if not OLD:
            assert by("transformers", directory).status == "same"
            return
        with pytest.raises(NotComparable, match=r"does not read this: RuntimeError: .*size mismatch for"):
            by("transformers", directory)

    def test_a_form_that_it_does_not_read(self, made: Callable[..., Path]) -> None:
        """transformers would go on with experts of random numbers; the witness says so."""
        report = by("transformers", made("moe", per_expert))
        found = {d.tensor: (d.kind, d.note) for d in report.differences}
        assert report.status == "different"
        assert found["model.language_model.layers.0.mlp.experts.gate_up_proj"] == (
            "only in B",
            "transformers does not find it in the files, and makes it up",
        )
        assert found["model.language_model.layers.0.mlp.experts.0.gate_proj.weight"][0] == "only in A"

    def test_several_dtypes(self, made: Callable[..., Path]) -> None:
        def widened(hf: dict[str, torch.Tensor]) -> None:
            hf[NORM] = hf[NORM].float() + 1e-5

        report = by("transformers", made("dense", widened))
        assert report.status == "same"
        assert "loads as float32" in report.told["witness"]

    def test_a_weight_changed_between(self, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """Negative control: transformers is given other files."""

        def changed(hf: dict[str, torch.Tensor]) -> None:
            hf["model.visual.blocks.1.attn.qkv.weight"][3, 5] += 1
            hf["model.language_model.layers.1.mlp.experts.gate_up_proj"][2, 7, 30] += 1

        other, load = made("moe", changed, "other"), transformers.load
        monkeypatch.setattr(transformers, "load", lambda _, dtype: load(other, dtype))
        report = by("transformers", made("moe"))
        assert report.status == "different"
        found = {d.tensor: (d.kind, d.count, d.first) for d in report.differences}
        assert found == {
            "model.visual.blocks.1.attn.qkv.weight": ("values", 1, (3, 5)),
            "model.language_model.layers.1.mlp.experts.gate_up_proj": ("values", 1, (2, 7, 30)),
        }

    def test_names_and_shapes_that_differ_are_named(
        self, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = transformers.expected

        def otherwise(directory: Path) -> dict[str, tuple[int, ...]]:
            shapes = expected(directory)
            del shapes[NORM]
            return shapes | {"model.visual.surplus": (1,), "lm_head.weight": (248, 63)}

        monkeypatch.setattr(transformers, "expected", otherwise)
        report = by("transformers", made("dense"))
        assert report.status == "different"
        assert [(d.tensor, d.kind, d.note) for d in report.differences] == [
            (NORM, "only in A", ""),
            ("model.visual.surplus", "only in B", ""),
            ("lm_head.weight", "shape", "[248, 64] and [248, 63]"),
        ]

    @pytest.mark.parametrize("more", [True, False])
    def test_an_extra_or_missing_tensor_is_named(self, made: Callable[..., Path], more: bool) -> None:
        directory = made(
            "dense",
            lambda hf: hf | {"model.surplus": hf[NORM].clone()} if more else {n: t for n, t in hf.items() if n != NORM},
        )
        with pytest.raises(NotComparable, match="model.surplus" if more else NORM):
            by("transformers", directory)

    def test_a_tie_that_versions_read_differently(self, made: Callable[..., Path]) -> None:
        """An untied file whose text_config says tied:
        5.x reads the top level, 4.57 drops the output layer without a word.
        """
        directory = made("dense")
        config = json.loads((directory / "config.json").read_text())
        config["text_config"]["tie_word_embeddings"] = True
        (directory / "config.json").write_text(json.dumps(config))
        found = [(d.tensor, d.kind) for d in by("transformers", directory).differences]
        assert found == ([("lm_head.weight", "only in A")] if OLD else [])

    def test_too_little_memory(self, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transformers, "free_memory", lambda: 10**6)
        monkeypatch.setattr(transformers, "load", pytest.fail)
        report = by("transformers", made("moe"))
        assert (report.status, report.data["elements"], report.data["witness_elements"]) == ("same", 0, False)
        assert "names and shapes only" in report.told["witness"]
        assert "no element" in report.told["compared"]
        assert any("names and shapes only" in warning for warning in report.warnings)

    def test_a_config_that_it_refuses(self, made: Callable[..., Path]) -> None:
        directory = made("dense")
        config = json.loads((directory / "config.json").read_text())
        config["vision_config"]["hidden_act"] = "nonsense"
        (directory / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            NotComparable, match=rf"transformers {version('transformers')} does not read this: KeyError: 'nonsense'"
        ):
            by("transformers", directory)

    def test_a_dry_run_asks_nobody(self, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transformers, "expected", pytest.fail)
        assert by("transformers", made("dense"), dry_run=True).status == "planned"

    def test_code_beside_the_weights_is_not_run(self, made: Callable[..., Path]) -> None:
        directory = made("dense")
        config = json.loads((directory / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "remote.Config", "AutoModelForImageTextToText": "remote.Model"}
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "remote.py").write_text(f"open({str(directory / 'ran')!r}, 'w')\n")
        assert by("transformers", directory).status == "same"
        assert not (directory / "ran").exists()

    def test_it_says_nothing_by_itself(self, made: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
        by("transformers", made("moe", per_expert))
        assert capfd.readouterr() == ("", "")


@pytest.mark.mcore_versions
class TestEither:
    @pytest.mark.parametrize(
        ("library", "other"), [("megatron-core", "transformers"), ("transformers", "megatron-core")]
    )
    def test_is_for_one_side(self, tmp_path: Path, library: str, other: str, request: pytest.FixtureRequest) -> None:
        directory = (
            write_hf(tmp_path / "hf", tiny(), random_hf_tensors(tiny()))
            if library == "megatron-core"
            else request.getfixturevalue("checkpoint")
        )
        with pytest.raises(NotComparable, match=f"{library} does not read") as caught:
            by(library, directory)
        assert caught.value.hint == f"Use --witness {other}."

    def test_a_missing_library_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(foreign, "installed", missing)
        directory = write_hf(tmp_path / "hf", tiny(), random_hf_tensors(tiny()))
        with pytest.raises(NotComparable, match="transformers is not installed") as caught:
            by("transformers", directory)
        assert caught.value.hint == "pip install transformers"

    def test_a_library_of_the_library_is_missing(self) -> None:
        """megatron-core 0.18 and newer import triton, which they do not require."""
        said = "cannot be imported: .*No module named 'nowhere'"
        with pytest.raises(NotComparable, match=said) as caught, foreign.speaking_for("transformers"):
            import_module("nowhere.at.all")
        assert caught.value.hint == "Install what it imports: nowhere. Without --witness vlconv reads by itself."

    def test_not_with_a_round_trip_on_disk(self, tmp_path: Path) -> None:
        directory = write_hf(tmp_path / "hf", tiny(), random_hf_tensors(tiny()))
        with pytest.raises(NotComparable, match="two checks"):
            by("transformers", directory, on_disk=tmp_path)


def test_memory_is_read_and_estimated(tmp_path: Path) -> None:
    from vlconv.converters.tensors.spec import TensorSpec

    specs = {"a": TensorSpec("a", (1000, 1000), "bfloat16"), "b": TensorSpec("b", (10,), "float32")}
    assert transformers.memory_needed(specs, 4) == 4_000_040 * 11 // 10 + 8_000_000 + transformers.OVERHEAD
    assert 0 < transformers.free_memory() < 2**50
