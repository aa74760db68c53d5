"""verify --like: what other tools write wrong, each made from a good directory, is found, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config, write_tiny_hf
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import NotComparable, Report, verify

SAMPLED = 2

INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
NORM = "model.language_model.layers.2.self_attn.q_norm.weight"

Change = Callable[[Path], object]


def tensors(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the tensors of each file."""

    def changed(directory: Path) -> None:
        for path in sorted(directory.glob("*.safetensors")):
            held = load_file(path)
            change(held)
            save_file(held, path, metadata={"format": "pt"})

    return changed


def document(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change a JSON file."""

    def changed(directory: Path) -> None:
        found = json.loads((directory / name).read_text())
        change(found)
        (directory / name).write_text(json.dumps(found))

    return changed


def index(change: Callable[[dict[str, Any]], object]) -> Change:
    return document(INDEX, change)


def config(**values: Any) -> Change:
    """Set fields, those of text_config as text__name; None removes one."""

    def change(found: dict[str, Any]) -> None:
        for name, value in values.items():
            section = found["text_config"] if name.startswith("text__") else found
            section.pop(name.removeprefix("text__"), None)
            if value is not None:
                section[name.removeprefix("text__")] = value

    return document("config.json", change)


def both(*changes: Change) -> Change:
    return lambda directory: [change(directory) for change in changes]


def without(*endings: str) -> Change:
    """Drop tensors, from files and index."""

    def gone(named: dict[str, Any]) -> None:
        for name in [name for name in named if any(part in name for part in endings)]:
            del named[name]

    return both(
        tensors(gone), index(lambda found: gone(found["weight_map"])), index(lambda found: found.update(metadata={}))
    )


def shape(held: dict[str, Any]) -> None:
    if HEAD in held:
        held[HEAD] = held[HEAD][:-3].clone()


def renamed(held: dict[str, Any]) -> None:
    for name in list(held):
        held[f"module.{name}"] = held.pop(name)


def unlink(*names: str) -> Change:
    return lambda directory: [(directory / name).unlink() for name in names]


def cut(directory: Path) -> None:
    path = directory / "model-00001-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


WRONG: dict[str, tuple[Change, str, str, str]] = {
    "lm_head dropped": (without(HEAD), "tie", "missing: lm_head.weight", "random numbers"),
    "two layers dropped": (
        without(".layers.1.", ".layers.2."),
        "names",
        "missing: 2 whole layers (model.language_model.layers.1, model.language_model.layers.2), 22 tensors",
        "random numbers",
    ),
    "tower dropped": (without("visual"), "names", "missing: the whole vision tower, 69 tensors", "random numbers"),
    "one norm dropped": (without(NORM), "names", f"missing: {NORM}", "random numbers"),
    "norms dropped": (without("q_norm"), "names", "layers.*.self_attn.q_norm.weight, 4 tensors", "random numbers"),
    "listed and nowhere": (tensors(lambda t: t.pop(NORM, None)), "index", f"in no file: {NORM}", "no loader"),
    "a file is gone": (
        unlink("model-00002-of-00003.safetensors"),
        "index",
        "1 of 3 files",
        "transformers and vLLM 0.32 stop with an error",
    ),
    "the last file was never there": (
        both(
            unlink("model-00003-of-00003.safetensors"),
            index(lambda i: i.update(weight_map={n: f for n, f in i["weight_map"].items() if "00003" not in f})),
        ),
        "index",
        "2 of 3 files of weights are there or named: without number 3",
        "missing",
    ),
    "not in the index": (
        index(lambda i: i["weight_map"].pop(NORM)),
        "index",
        f"1 tensor is in the files and not in {INDEX}: {NORM}",
        "transformers 4.57 makes it up",
    ),
    "no index": (unlink(INDEX), "index", f"3 files of weights and no {INDEX}", "finds no weights"),
    "index of nothing": (
        lambda d: (d / INDEX).write_text('{"weight_map": 3}'),
        "damaged",
        f"{INDEX}: no weight_map",
        "cannot be read",
    ),
    "index without metadata": (
        index(lambda i: i.pop("metadata")),
        "index",
        f"{INDEX} has no metadata",
        "transformers stops with an error",
    ),
    "file cut off": (cut, "damaged", "00001-of-00003.safetensors: the tensors", "cannot be read"),
    "surplus": (
        both(
            tensors(lambda t: t.update({"score.weight": t[NORM].clone()} if NORM in t else {})),
            index(
                lambda i: i.update(metadata={}, weight_map=i["weight_map"] | {"score.weight": i["weight_map"][NORM]})
            ),
        ),
        "names",
        "not expected: score.weight",
        "vLLM refuses",
    ),
    "another beginning": (
        both(tensors(renamed), unlink(INDEX)),
        "names",
        "115 names begin with module.",
        "mean nothing",
    ),
    "turned": (
        tensors(lambda t: t.update({n: x.T.contiguous() for n, x in t.items() if n.endswith(".q_proj.weight")})),
        "shapes",
        "q_proj.weight in 4 places has shape [64, 128], [128, 64] in the reference, the shape of the transpose",
        "stop with an error",
    ),
    "rows cut": (tensors(shape), "shapes", "lm_head.weight has shape [297, 64], [300, 64]", "stop with an error"),
    "tied by mistake": (
        both(config(tie_word_embeddings=True, text__tie_word_embeddings=True), without(HEAD)),
        "tie",
        "tie_word_embeddings is true, false in the reference; lm_head.weight is in no file",
        "the embedding serves",
    ),
    "stale copy": (
        config(tie_word_embeddings=True, text__tie_word_embeddings=True),
        "tie",
        "no copy of its embedding",
        "two models",
    ),
    "tied twice": (config(text__tie_word_embeddings=True), "tie", "says two things", "transformers 4.57"),
    "the tie is no truth value": (
        config(tie_word_embeddings="yes"),
        "tie",
        "is yes, not true or false",
        "any such value",
    ),
    "no word of the tie": (
        config(tie_word_embeddings=None, text__tie_word_embeddings=None),
        "tie",
        "does not say tie_word_embeddings",
        "versions",
    ),
    "fewer layers": (
        config(text__num_hidden_layers=3),
        "config",
        "num_hidden_layers of config.json is 3, 4",
        "another",
    ),
    "no theta": (config(text__rope_theta=None), "config", "text_config.rope_theta is missing", "different versions"),
    "other theta": (config(text__rope_theta=10000), "config", "rope_theta of config.json is 10000", "another model"),
    "other epsilon": (
        config(text__rms_norm_eps=1e-5),
        "config",
        "rms_norm_eps of config.json is 1e-05",
        "another model",
    ),
    "other image token": (config(image_token_id=3), "config", "image_token_id of config.json is 3, 286", "images"),
    "other class": (config(architectures=["Qwen3ForCausalLM"]), "config", "architectures", "vLLM"),
    "other model": (config(model_type="qwen3_vl_moe"), "config", "num_experts", ""),
    "no config": (unlink("config.json"), "config", "config.json is missing", "stop with an error"),
    "config is no JSON": (lambda d: (d / "config.json").write_text("{"), "config", "not valid JSON", "stop"),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), "config", "no JSON object", "stop"),
    "no tokenizer": (
        lambda d: [(d / name).unlink(missing_ok=True) for name in ("tokenizer.json", "vocab.json")],
        "files",
        "missing: tokenizer",
        "cannot load",
    ),
    "no processor": (unlink("preprocessor_config.json"), "files", "missing: preprocessor_config.json", "cannot load"),
}
"""What was done -> (how, kind, what is said, what comes of it)."""

NOTES: dict[str, tuple[Change, str, str]] = {
    "in another file": (
        index(lambda i: i["weight_map"].update({HEAD: "model-00003-of-00003.safetensors"})),
        "index",
        "in another file",
    ),
    "total_size": (index(lambda i: i["metadata"].update(total_size=7)), "index", "says total_size 7"),
    "float32": (
        both(tensors(lambda t: t.update({n: v.float() for n, v in t.items()})), index(lambda i: i.update(metadata={}))),
        "dtypes",
        "all 116 tensors are float32, bfloat16 in the reference",
    ),
    "no chat template": (unlink("chat_template.json"), "files", "missing: chat template"),
    "other generation": (
        document("generation_config.json", lambda c: c.update(temperature=0.1)),
        "files",
        "1 files are not the reference's: generation_config.json",
    ),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("like") / "reference"
    write_tiny_hf(directory, tiny_config("qwen3_vl"), shards=3)
    return directory


@pytest.fixture
def held(tmp_path: Path, reference: Path) -> Callable[..., Report]:
    """Copies the reference, changes the copy, and holds it against the reference."""

    def compared(change: Change = lambda d: None, like: Path | None = None) -> Report:
        out = shutil.copytree(reference, tmp_path / "out")
        change(out)
        return verify(out, like=like or reference)

    return compared


def told(report: Report) -> list[tuple[str, str]]:
    return [(found.severity, found.what) for found in report.findings]


def test_a_copy_is_as_it_should_be(held: Callable[..., Report]) -> None:
    report = held()
    assert (report.status, report.findings) == ("same", [])
    assert report.data["tensors"] == report.data["expected"] == 116


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(held: Callable[..., Report], name: str) -> None:
    change, kind, what, load = WRONG[name]
    report = held(change)
    assert report.status == "different"
    found = [f for f in report.findings if f.kind == kind and what in f.what and load in f.load]
    assert [f.severity for f in found] == ["wrong"], told(report)


@pytest.mark.parametrize(
    "name",
    [
        *("lm_head dropped", "two layers dropped", "one norm dropped", "rows cut", "surplus", "a file is gone"),
        "file cut off",
    ],
)
def test_and_nothing_else_is_called_wrong(held: Callable[..., Report], name: str) -> None:
    assert [f.severity for f in held(WRONG[name][0]).findings].count("wrong") == 1


@pytest.mark.parametrize("name", NOTES)
def test_what_is_served_as_it_should_be_is_no_fault(held: Callable[..., Report], name: str) -> None:
    change, kind, what = NOTES[name]
    report = held(change)
    assert report.status == "same" and [(f.severity, f.kind) for f in report.findings] == [("note", kind)]
    assert what in report.findings[0].what


def test_rows_that_config_json_counts_are_a_note(held: Callable[..., Report]) -> None:
    def longer(found: dict[str, Any]) -> None:
        for name in [name for name in found if name.endswith(("embed_tokens.weight", HEAD))]:
            found[name] = torch.cat([found[name], found[name][:20]])

    change = both(tensors(longer), config(text__vocab_size=320), index(lambda i: i.update(metadata={})))
    shapes = [f for f in held(change).findings if f.kind == "shapes"]
    assert [f.severity for f in shapes] == ["note", "note"] and all("not cut" in f.what for f in shapes)


def test_the_size_of_files_that_are_gone_is_not_told_too(held: Callable[..., Report]) -> None:
    assert not any("total_size" in f.what for f in held(WRONG["a file is gone"][0]).findings)


def test_a_reference_without_weights_will_do(held: Callable[..., Report], reference: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(reference, bare, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    assert held(like=bare).findings == []
    shutil.rmtree(tmp_path / "out")
    assert "missing: lm_head" in held(without(HEAD), bare).findings[0].what


@pytest.mark.parametrize(
    ("model", "change"),
    [("qwen3_vl_moe", {}), ("qwen2_5_vl", {}), ("qwen3_5", {}), ("qwen3_moe", {}), ("qwen3_vl", {"tied": True})],
)
def test_other_models_are_as_they_should_be(tmp_path: Path, model: str, change: dict[str, Any]) -> None:
    for name in ("out", "reference"):
        write_tiny_hf(tmp_path / name, tiny_config(model, **change), shards=2)
    report = verify(tmp_path / "out", like=tmp_path / "reference")
    assert told(report) == []


def test_a_copy_of_a_tied_embedding_is_no_fault(tmp_path: Path) -> None:
    config_ = tiny_config("qwen3_vl", tied=True)
    hf = write_tiny_hf(tmp_path / "reference", config_)
    write_tiny_hf(
        tmp_path / "out", config_, tensors=hf | {HEAD: hf["model.language_model.embed_tokens.weight"].clone()}
    )
    assert told(verify(tmp_path / "out", like=tmp_path / "reference")) == [
        ("note", f"the model is tied, and {HEAD} is there all the same, a copy of its embedding")
    ]


class TestHead:
    """Multi-token prediction."""

    @pytest.fixture
    def pair(self, tmp_path: Path) -> Path:
        for name in ("out", "reference"):
            write_tiny_hf(tmp_path / name, tiny_config("qwen3_5"), shards=2)
        return tmp_path

    def test_a_promise_that_is_not_kept(self, pair: Path) -> None:
        without("mtp.")(pair / "out")
        report = verify(pair / "out", like=pair / "reference")
        assert [f.what for f in report.findings if f.severity == "wrong"] == [
            "config.json promises a multi-token-prediction head (mtp_num_hidden_layers) that is in no file"
        ]

    def test_a_head_that_is_lost_altogether(self, pair: Path) -> None:
        without("mtp.")(pair / "out")
        config(text__mtp_num_hidden_layers=0)(pair / "out")
        report = verify(pair / "out", like=pair / "reference")
        assert report.status == "same" and "this model none" in report.findings[0].what

    def test_a_part_of_it(self, pair: Path) -> None:
        without("mtp.fc.weight")(pair / "out")
        report = verify(pair / "out", like=pair / "reference")
        assert [f.what for f in report.findings if f.severity == "wrong"] == [
            "missing of the multi-token-prediction head: mtp.fc.weight"
        ]


def test_experts_one_by_one(tmp_path: Path) -> None:
    from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf

    write_tiny_hf(tmp_path / "reference", tiny_config("qwen3_vl_moe"))
    hf2mcore(tmp_path / "reference", tmp_path / "mcore", Hf2McoreOptions())
    options = Mcore2HfOptions(reference=tmp_path / "reference", experts="per-expert")
    mcore2hf(tmp_path / "mcore", tmp_path / "out", options)
    report = verify(tmp_path / "out", like=tmp_path / "reference")
    assert [f.load for f in report.findings] == ["vLLM and SGLang read that; transformers makes up its experts"]


def test_experts_as_transformers_5_saves_them(tmp_path: Path) -> None:
    hf = write_tiny_hf(tmp_path / "reference", tiny_config("qwen3_vl_moe"))
    saved = {n: t.transpose(1, 2).contiguous() if ".experts." in n else t for n, t in hf.items()}
    write_tiny_hf(tmp_path / "out", tiny_config("qwen3_vl_moe"), tensors=saved)
    (found,) = verify(tmp_path / "out", like=tmp_path / "reference").findings
    assert found.severity == "wrong" and "transformers 4.57, vLLM and SGLang do not" in found.load


class TestCommandLine:
    def test_a_line_of_each_and_exit_1(self, reference: Path, tmp_path: Path) -> None:
        out = shutil.copytree(reference, tmp_path / "out")
        assert CliRunner().invoke(app, ["verify", str(out), "--like", str(reference)]).exit_code == 0
        without(HEAD)(out)
        ran = CliRunner().invoke(app, ["verify", str(out), "--like", str(reference)])
        assert ran.exit_code == 1
        assert "\nwrong\ttie\tmissing: lm_head.weight" in ran.stdout

    def test_json(self, reference: Path, tmp_path: Path) -> None:
        out = shutil.copytree(reference, tmp_path / "out")
        without(HEAD)(out)
        ran = CliRunner().invoke(app, ["verify", str(out), "--like", str(reference), "--json"])
        (found, *_) = json.loads(ran.stdout)["findings"]
        assert (found["kind"], found["tensors"], found["count"]) == ("tie", [HEAD], 1)

    @pytest.mark.parametrize(("extra", "says"), [(["."], "one directory"), (["--witness", "transformers"], "one")])
    def test_it_is_about_one_directory(self, reference: Path, extra: list[str], says: str) -> None:
        ran = CliRunner().invoke(app, ["verify", str(reference), *extra, "--like", str(reference)])
        assert ran.exit_code == 3 and says in ran.output


def test_what_is_no_directory_of_a_model_is_not_comparable(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotComparable, match="holds neither"):
        verify(tmp_path / "empty", like=reference)
    with pytest.raises(NotComparable, match="does not exist"):
        verify(reference, like=tmp_path / "nowhere")
    with pytest.raises(NotComparable, match="same directory"):
        verify(reference, like=reference)
