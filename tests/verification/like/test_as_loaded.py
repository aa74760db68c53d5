"""What --like says of a loader is what the loader does: transformers, on the same damaged directories."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config, write_tiny_hf, write_weights

from vlconv.converters import Mcore2HfOptions, Report, hf2mcore, mcore2hf, verify

spec = importlib.util.spec_from_file_location("like_cases", Path(__file__).parent / "test_like.py")
assert spec and spec.loader
cases = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = cases
spec.loader.exec_module(cases)

pytestmark = pytest.mark.slow

MADE_UP = ["lm_head dropped", "two layers dropped", "tower dropped", "one norm dropped", "norms dropped"]
STOPS = [
    "a file is gone",
    "no index",
    "index of nothing",
    "turned",
    "index without metadata",
    "file cut off",
    "rows cut",
    "no config",
    "config is no JSON",
]


def damaged(tmp_path: Path, name: str) -> tuple[Path, Report]:
    return changed(tmp_path, cases.WRONG[name][0])


def changed(tmp_path: Path, change: Any) -> tuple[Path, Report]:
    write_tiny_hf(tmp_path / "reference", tiny_config("qwen3_vl"), shards=3)
    out = shutil.copytree(tmp_path / "reference", tmp_path / "out")
    change(out)
    return out, verify(out, like=tmp_path / "reference")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return {name: t for path in directory.glob("*.safetensors") for name, t in load_file(path).items()}


def tie(directory: Path) -> None:
    cases.config(tie_word_embeddings=True, text__tie_word_embeddings=True)(directory)


def loaded(directory: Path) -> dict[str, Any]:
    from transformers import AutoModelForImageTextToText

    return dict(AutoModelForImageTextToText.from_pretrained(directory, output_loading_info=True)[1])


@pytest.mark.parametrize("name", MADE_UP)
def test_what_is_made_up_is_what_is_missing(tmp_path: Path, name: str) -> None:
    out, report = damaged(tmp_path, name)
    missing = loaded(out)["missing_keys"]
    assert sum(f.count for f in report.findings if "random numbers" in f.load) == len(missing) > 0


@pytest.mark.parametrize("name", STOPS)
def test_where_it_is_said_to_stop_it_stops(tmp_path: Path, name: str) -> None:
    out, report = damaged(tmp_path, name)
    assert any("stop" in f.load for f in report.findings)
    with pytest.raises(Exception, match=r"\S"):
        loaded(out)


def test_surplus_is_ignored(tmp_path: Path) -> None:
    out, _ = damaged(tmp_path, "surplus")
    assert list(loaded(out)["unexpected_keys"]) == ["score.weight"]


def test_what_the_index_lists_and_no_file_has_is_made_up(tmp_path: Path) -> None:
    """By transformers 5; 4.57 leaves it on the meta device."""
    from transformers import AutoModelForImageTextToText, __version__

    out, _ = damaged(tmp_path, "listed and nowhere")
    four = __version__.startswith("4.")
    assert list(loaded(out)["missing_keys"]) == ([] if four else [cases.NORM])
    assert AutoModelForImageTextToText.from_pretrained(out).state_dict()[cases.NORM].is_meta == four


def test_names_that_begin_otherwise_are_ignored_and_their_tensors_made_up(tmp_path: Path) -> None:
    def renamed(found: dict[str, Any]) -> None:
        found["weight_map"] = {f"module.{name}": file for name, file in found["weight_map"].items()}

    out, report = changed(tmp_path, cases.both(cases.tensors(cases.renamed), cases.index(renamed)))
    found = next(f for f in report.findings if "begin with module." in f.what)
    told = loaded(out)
    assert found.count == 115 and len(told["missing_keys"]) == len(told["unexpected_keys"]) == 116


def test_an_index_that_is_wrong_of_a_place_does_no_harm(tmp_path: Path) -> None:
    out, _ = changed(tmp_path, cases.NOTES["in another file"][0])
    assert not any(loaded(out).values())


def test_what_is_not_in_the_index_is_made_up_by_transformers_4(tmp_path: Path) -> None:
    import transformers

    out, _ = damaged(tmp_path, "not in the index")
    assert list(loaded(out)["missing_keys"]) == [cases.NORM] * transformers.__version__.startswith("4.")


def test_a_single_file_beside_an_index_that_does_not_name_it_is_read_alone(tmp_path: Path) -> None:
    def single(out: Path) -> None:
        write_weights(out, {cases.NORM: weights(out)[cases.NORM]})

    out, report = changed(tmp_path, single)
    assert any("reads model.safetensors alone" in f.load for f in report.findings)
    assert len(loaded(out)["missing_keys"]) == 115


def test_other_files_beside_a_single_one_are_not_read(tmp_path: Path) -> None:
    def apart(out: Path) -> None:
        held = weights(out)
        for path in [*out.glob("*.safetensors"), out / cases.INDEX]:
            path.unlink()
        save_file({cases.NORM: held.pop(cases.NORM)}, out / "more.safetensors", metadata={"format": "pt"})
        write_weights(out, held)

    out, report = changed(tmp_path, apart)
    assert any("transformers reads model.safetensors alone" in f.load for f in report.findings)
    assert list(loaded(out)["missing_keys"]) == [cases.NORM]


class TestTied:
    def test_a_head_that_is_no_copy_is_taken_by_transformers_5(self, tmp_path: Path) -> None:
        """And dropped by 4.57."""
        import transformers

        config = tiny_config("qwen3_vl", tied=True)
        hf = write_tiny_hf(tmp_path / "reference", config)
        embedding = hf["model.language_model.embed_tokens.weight"]
        write_tiny_hf(tmp_path / "out", config, tensors=hf | {cases.HEAD: embedding.flip(0).contiguous()})
        (found,) = verify(tmp_path / "out", like=tmp_path / "reference").findings
        assert "transformers 5 takes it, transformers 4.57 and vLLM drop it" in found.load
        model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
        taken = torch.equal(model.lm_head.weight, embedding.flip(0))
        assert taken == transformers.__version__.startswith("5.") and taken != torch.equal(
            model.lm_head.weight, embedding
        )

    def test_tied_where_the_reference_is_not_the_embedding_serves(self, tmp_path: Path) -> None:
        out, report = changed(tmp_path, cases.both(tie, cases.without(cases.HEAD)))
        assert any("the embedding serves as output layer" in f.load for f in report.findings)
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(out)
        assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


class TestExperts:
    def test_one_by_one_they_are_made_up(self, tmp_path: Path) -> None:
        config = tiny_config("qwen3_vl_moe")
        hf = write_tiny_hf(tmp_path / "reference", config)
        hf2mcore(tmp_path / "reference", tmp_path / "mcore")
        mcore2hf(
            tmp_path / "mcore",
            tmp_path / "out",
            Mcore2HfOptions(reference=tmp_path / "reference", experts="per-expert"),
        )
        (found,) = verify(tmp_path / "out", like=tmp_path / "reference").findings
        assert "transformers makes up its experts" in found.load
        told = loaded(tmp_path / "out")
        assert set(told["missing_keys"]) == {name for name in hf if ".mlp.experts." in name}

    def test_as_transformers_5_saves_them_it_reads_them(self, tmp_path: Path) -> None:
        import transformers

        config = tiny_config("qwen3_vl_moe")
        hf = write_tiny_hf(tmp_path / "reference", config)
        saved = {n: t.transpose(1, 2).contiguous() if ".experts." in n else t for n, t in hf.items()}
        write_tiny_hf(tmp_path / "out", config, tensors=saved)
        (found,) = verify(tmp_path / "out", like=tmp_path / "reference").findings
        assert "transformers 5 reads that; transformers 4.57, vLLM and SGLang do not" in found.load
        if transformers.__version__.startswith("5."):
            models = [
                transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / n) for n in ("out", "reference")
            ]
            states = [model.state_dict() for model in models]
            assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
        else:
            with pytest.raises(Exception, match=r"\S"):
                loaded(tmp_path / "out")


@pytest.mark.parametrize("name", ["no tokenizer", "no processor"])
def test_without_these_files_there_is_no_processor(tmp_path: Path, name: str) -> None:
    from transformers import AutoProcessor

    out, report = damaged(tmp_path, name)
    assert any("cannot load it" in f.load for f in report.findings)
    with pytest.raises(Exception, match=r"\S"):
        AutoProcessor.from_pretrained(out)


@pytest.mark.parametrize("name", ["fewer layers", "other theta", "other epsilon", "other image token"])
def test_other_fields_load_as_another_model_and_nothing_is_said(tmp_path: Path, name: str) -> None:
    out, _ = damaged(tmp_path, name)
    told = loaded(out)
    assert not told["missing_keys"] and not told.get("mismatched_keys")


def test_rows_that_config_json_counts_load(tmp_path: Path) -> None:
    def longer(out: Path) -> None:
        held = weights(out)
        for name in ("model.language_model.embed_tokens.weight", cases.HEAD):
            held[name] = torch.cat([held[name], torch.zeros(20, held[name].shape[1], dtype=held[name].dtype)])
        for path in [*out.glob("*.safetensors"), out / cases.INDEX]:
            path.unlink()
        write_weights(out, held)
        cases.config(text__vocab_size=320)(out)

    out, report = changed(tmp_path, longer)
    assert any("it loads, as config.json has as many rows" in f.load for f in report.findings)
    assert not any(loaded(out).values())


def test_without_a_tokenizer_every_prompt_is_empty(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    def without(directory: Path) -> None:
        for path in directory.iterdir():
            if path.name.startswith(("tokenizer", "vocab", "merges")):
                path.unlink()

    out, report = changed(tmp_path, without)
    assert AutoTokenizer.from_pretrained(tmp_path / "reference")("good morning").input_ids
    assert AutoTokenizer.from_pretrained(out)("good morning").input_ids == []
    assert any("every prompt is empty" in found.load for found in report.findings)
