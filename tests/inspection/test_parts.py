"""Parts of inspect that a whole checkpoint hardly shows."""

from __future__ import annotations

from pathlib import Path

from vlconv.converters.config.releases import nearest
from vlconv.converters.formats.directory.statements import Stated
from vlconv.converters.inspection.commands import of_hf
from vlconv.converters.inspection.places import file_bytes
from vlconv.converters.inspection.topology import topology


def test_hugging_face_files_are_not_the_checkpoints(tmp_path: Path) -> None:
    for name, size in {"a": 3, "mp_rank_00/b": 5, "huggingface/c": 7}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert file_bytes(tmp_path) == 8


def test_of_two_that_state_a_size_the_first_counts(tmp_path: Path) -> None:
    said = [
        Stated("args", {"tensor_model_parallel_size": 2}),
        Stated("run_config.yaml", {"tensor_model_parallel_size": 4, "pipeline_model_parallel_size": 8}),
        Stated("args.json", {"context_parallel_size": "2", "world_size": True, "expert_model_parallel_size": 1 << 40}),
    ]
    assert topology(tmp_path, None, said) == {"tp": 2, "pp": 8}
    (tmp_path / "__0_0.distcp").touch()
    (tmp_path / "__0_1.distcp").touch()
    (tmp_path / "__3_0.distcp").touch()
    assert topology(tmp_path, None, [])["ranks_that_wrote"] == 2


def test_a_path_that_looks_like_an_option() -> None:
    assert of_hf(Path("-x"), False) == ("vlconv hf2mcore ./-x x-mcore",)


def test_nearest_is_by_how_far_sizes_are_apart() -> None:
    near = nearest(["qwen3_vl"], {"hidden": 5000})
    assert near and (near.release, near.differs) == ("Qwen3-VL-32B", {"text_config.hidden_size": (5000, 5120)})
