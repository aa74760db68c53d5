"""Names and values that want to be lines of ours, to act on the terminal, or to drown what is said: in every place
where a stranger chooses them, through the command line.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusing import edit_config, edit_metadata
from tiny import tiny_config, write_tiny_hf
from torch.distributed.checkpoint.metadata import MetadataIndex
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import Hf2McoreOptions, hf2mcore

LINE = "a\ninjected: b\r\x1b[2J\u202e\x9b"
LONG = "y" * 100_000
BOTH = pytest.mark.parametrize("evil", [LINE, LONG], ids=["lines", "long"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hf/ in two shards, mcore/ and ranks/ made of it."""
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf", tiny_config(), shards=2)
    hf2mcore(work / "hf", work / "mcore")
    hf2mcore(work / "hf", work / "ranks", Hf2McoreOptions(format="torch", tensor_model_parallel_size=2))
    return work


@pytest.fixture
def work(tmp_path: Path, models: Path) -> Path:
    shutil.copytree(models, tmp_path / "w", symlinks=True)
    return tmp_path / "w"


def said(*arguments: Any) -> str:
    """What a command says on both streams, held to what it may never say."""
    ran = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="vlconv", env={"COLUMNS": "200"})
    text = ran.stdout + ran.stderr
    assert not isinstance(ran.exception, Exception), ran.exception
    assert "traceback" not in text.lower()
    assert "fault of vlconv" not in text
    assert not [line for line in re.split(r"[\n\r]", text) if line.strip().startswith("injected")]
    assert not {"\x1b", "\u202e", "\x9b", "\r"} & set(text)
    assert len(text) < 8_000, text[:300]
    assert not [line for line in text.splitlines() if len(line) > 3_000]
    return text


def header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a safetensors header."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    found = json.loads(data[8 : 8 + length])
    change(found)
    text = json.dumps(found).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def index(hf: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = hf / "model.safetensors.index.json"
    found = json.loads(path.read_text())
    change(found["weight_map"])
    path.write_text(json.dumps(found))


NORM = "model.language_model.norm.weight"
SHARD = "model-00001-of-00002.safetensors"
CONFIG: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "model_type": lambda c, evil: c.update(model_type=evil),
    "an integer": lambda c, evil: c["text_config"].update(hidden_size=evil),
    "a list": lambda c, evil: c["vision_config"].update(deepstack_visual_indexes=[evil]),
    "the tie": lambda c, evil: c.update(tie_word_embeddings=evil),
    "theta": lambda c, evil: c["text_config"].update(rope_theta=evil),
    "rope type": lambda c, evil: c["text_config"]["rope_scaling"].update(rope_type=[evil]),
    "section": lambda c, evil: c["text_config"]["rope_scaling"].update(mrope_section=evil),
    "epsilon": lambda c, evil: c["text_config"].update(rms_norm_eps={evil: evil}),
    "activation": lambda c, evil: c["text_config"].update(hidden_act=evil),
}


@BOTH
class TestHuggingFace:
    @pytest.mark.parametrize("place", CONFIG)
    def test_config_json(self, work: Path, evil: str, place: str) -> None:
        edit_config(work / "hf", lambda c: CONFIG[place](c, evil))
        assert "config.json" in said("hf2mcore", work / "hf", work / "out")

    def test_a_key_twice(self, work: Path, evil: str) -> None:
        key = json.dumps(evil)
        (work / "hf" / "config.json").write_text(f"{{{key}: 1, {key}: 2}}")
        assert "is there twice" in said("hf2mcore", work / "hf", work / "out")

    @pytest.mark.parametrize("in_index", [True, False])
    def test_a_tensors_name(self, work: Path, evil: str, in_index: bool) -> None:
        header(
            work / "hf" / SHARD, lambda h: h.update({f"model.{evil}": h.pop(next(k for k in h if k != "__metadata__"))})
        )
        if in_index:
            index(work / "hf", lambda m: m.update({f"model.{evil}": SHARD}))
        text = said("hf2mcore", work / "hf", work / "out")
        assert "error: " in text
        assert "model." in text

    def test_a_dtype(self, work: Path, evil: str) -> None:
        header(work / "hf" / SHARD, lambda h: [e.update(dtype=evil) for n, e in h.items() if n != "__metadata__"])
        assert "has dtype" in said("hf2mcore", work / "hf", work / "out")

    @pytest.mark.parametrize("file", ["{}", "../{}", "{}.safetensors"])
    def test_a_file_of_the_index(self, work: Path, evil: str, file: str) -> None:
        index(work / "hf", lambda m: m.update({NORM: file.format(evil)}))
        assert "error: " in said("hf2mcore", work / "hf", work / "out")

    def test_a_tensor_that_the_index_alone_has(self, work: Path, evil: str) -> None:
        index(work / "hf", lambda m: m.update({evil: SHARD}))
        assert "lacks" in said("hf2mcore", work / "hf", work / "out")

    def test_verify_tells_of_differences(self, work: Path, evil: str) -> None:
        """Of two models; the names are those of the model itself."""
        edit_config(work / "hf", lambda c: c.update({evil: evil}))
        assert "same" in said("verify", work / "hf", work / "mcore")


class TestFilesBeside:
    def test_names_of_files(self, work: Path) -> None:
        for number in range(200):
            (work / "hf" / f"{number:03d}{LINE}.txt").write_text("x")
        (work / "hf" / f"{LINE}.py").write_text("x")
        for number in range(50):
            (work / "hf" / f"{number}{LINE}.link").symlink_to("nowhere")
        text = said("hf2mcore", work / "hf", work / "out")
        assert "  to verify  vlconv verify " in text
        assert "files are not copied" in text

    def test_a_link_out(self, work: Path) -> None:
        (work / "hf" / LINE).symlink_to("/etc/passwd")
        assert "leads out of its directory" in said("hf2mcore", work / "hf", work / "out")


STATED = ("num_layers", "rotary_base", "mrope_section", "norm_epsilon", "vision_config", "hf_config_json", "vocab_size")


class TestStatements:
    @BOTH
    @pytest.mark.parametrize("reference", [True, False])
    @pytest.mark.parametrize("key", [*STATED, "other"])
    def test_run_config(self, work: Path, evil: str, key: str, reference: bool) -> None:
        value = {evil: [evil]} if key == "vision_config" else [evil, {evil: evil}] if key == "other" else evil
        release = work / "mcore" / "release"
        (release / "run_config.yaml").write_text(json.dumps({"model": {key: value, evil: 1}, evil: 2}))
        if not reference:
            shutil.rmtree(work / "mcore" / "huggingface")
        said("mcore2hf", work / "mcore", work / "out")

    @pytest.mark.parametrize(
        "text", [f"a: !{LINE} b", "? ", f"a: *{'y' * 100_000}", f"{'y' * 100_000}: 1\n{'y' * 100_000}: 2"]
    )
    def test_no_yaml(self, work: Path, text: str) -> None:
        (work / "mcore" / "release" / "run_config.yaml").write_text(text)
        said("mcore2hf", work / "mcore", work / "out")

    @BOTH
    @pytest.mark.parametrize("name", ["args.json", "mca_config.json"])
    def test_json(self, work: Path, evil: str, name: str) -> None:
        (work / "mcore" / name).write_text(json.dumps({"num_layers": evil, "mrope_section": [evil], evil: evil}))
        said("mcore2hf", work / "mcore", work / "out")
        (work / "mcore" / name).write_text(evil)
        assert f"{name} is not valid JSON" in said("mcore2hf", work / "mcore", work / "out")

    @BOTH
    def test_args_of_rank_files(self, work: Path, evil: str) -> None:
        for number in (0, 1):
            path = work / "ranks" / "release" / f"mp_rank_{number:02d}" / "model_optim_rng.pt"
            state = torch.load(path, weights_only=False)
            state["args"] = Namespace(num_layers=[evil], norm_epsilon=evil, rotary_base=3, **{evil: evil})
            state["iteration"] = f"{number}{evil}"
            torch.save(state, path)
        assert "error: " in said("mcore2hf", work / "ranks", work / "out")


class TestMegatron:
    def test_folders(self, work: Path) -> None:
        for name in (f"global_step_1{LINE}", f"global_step_2{LINE}"):
            shutil.copytree(work / "mcore" / "release", work / "many" / name)
        assert "holds several checkpoints" in said("mcore2hf", work / "many", work / "out")
        release = work / "ranks" / "release"
        (release / "mp_rank_00").rename(release / f"mp_rank_00{LINE}")
        assert "not a rank directory's name" in said("mcore2hf", work / "ranks", work / "out")

    @BOTH
    def test_the_tracker(self, work: Path, evil: str) -> None:
        (work / "mcore" / "latest_checkpointed_iteration.txt").write_text(evil)
        assert "holds neither a number" in said("mcore2hf", work / "mcore", work / "out")

    @BOTH
    @pytest.mark.parametrize("how", ["one", "all", "file", "surplus"])
    def test_metadata(self, work: Path, evil: str, how: str) -> None:
        def change(metadata: Any) -> None:
            entries, places = metadata.state_dict_metadata, metadata.storage_data
            names = sorted(n for n in entries if n.endswith("weight"))
            if how == "file":
                for info in places.values():
                    object.__setattr__(info, "relative_path", evil)
            elif how == "surplus":
                entries[evil] = entries[names[0]]
            for name in names[: {"one": 1, "all": len(names)}.get(how, 0)]:
                entries[f"{name}.{evil}"] = entries.pop(name)
                for old in [index for index in places if index.fqn == name]:
                    places[MetadataIndex(f"{name}.{evil}", old.offset, old.index)] = places.pop(old)

        edit_metadata(work / "mcore" / "release", change)
        assert "error: " in said("mcore2hf", work / "mcore", work / "out")

    @BOTH
    def test_a_pickle(self, work: Path, evil: str) -> None:
        class Named:
            def __reduce__(self) -> Any:
                return evil

        (work / "mcore" / "release" / ".metadata").write_bytes(
            b"\x80\x04c" + b"os\n" + b"system\n" + pickle.dumps(evil)[2:-1] + b"\x85R."
        )
        assert "nothing" in said("mcore2hf", work / "mcore", work / "out").lower()

    @BOTH
    def test_tensors_of_rank_files(self, work: Path, evil: str) -> None:
        path = work / "ranks" / "release" / "mp_rank_00" / "model_optim_rng.pt"
        state = torch.load(path, weights_only=False)
        name = next(n for n in state["model"] if n.endswith("norm.weight"))
        state["model"][f"{evil}{name}"] = state["model"].pop(name)
        state["model"][f"{evil}.int"] = torch.zeros(3, dtype=torch.int32)
        torch.save(state, path)
        assert "error: " in said("mcore2hf", work / "ranks", work / "out")


class TestWhatIsAskedFor:
    @BOTH
    @pytest.mark.parametrize(
        "arguments",
        [
            ("mcore2hf", "{}", "out"),
            ("mcore2hf", "mcore", "out/{}"),
            ("mcore2hf", "mcore", "out", "--reference", "{}"),
            ("mcore2hf", "mcore", "out", "--reference", "a/b", "--revision", "{}"),
            ("mcore2hf", "mcore", "out", "--layout", "{}"),
            ("mcore2hf", "mcore", "out", "--dtype", "{}"),
            ("mcore2hf", "mcore", "out", "--max-shard-size", "{}"),
            ("hf2mcore", "{}", "out"),
            ("verify", "{}", "mcore"),
            ("names", "--layout", "{}", "--model", "qwen3_vl"),
            ("names", "--layout", "mbridge", "--model", "{}"),
        ],
    )
    def test_options_and_paths(
        self, work: Path, evil: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(work)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        text = said(*(a.format(evil) for a in arguments))
        assert any(word in text for word in ("error: ", "not comparable: ", "Invalid value"))

    def test_a_target_that_is_there(self, work: Path) -> None:
        target = work / LINE
        target.mkdir()
        (target / LINE).write_text("x")
        text = said("mcore2hf", work / "mcore", target, "--overwrite")
        assert "is not replaced" in text
        assert "is not empty" in said("mcore2hf", work / "mcore", target)

    def test_all_from_and_to_such_places(self, work: Path) -> None:
        (work / LINE).mkdir()
        for name in ("hf", "mcore"):
            (work / name).rename(work / LINE / name)
        assert "  to load    checkpoint" in said("hf2mcore", work / LINE / "hf", work / LINE / "out")
        assert "  to serve   vllm serve " in said("mcore2hf", work / LINE / "mcore", work / LINE / "back")
        assert "same: " in said("verify", work / LINE / "hf", work / LINE / "mcore")
