"""What a page says: the numbers of the report and its words, whatever these are, and nothing of anybody else."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from read_page import ReadPage
from tiny import tiny_config, write_tiny_hf

from vlconv import __version__
from vlconv.converters import Difference, Fact, Finding, HeatMap, Report, verify
from vlconv.converters.report import Step
from vlconv.page import as_html

STYLE = Path(__file__).parents[3] / "cli" / "page" / "style.css"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One projection of one layer is half as large again; queries of all layers are a little off."""
    folder = tmp_path_factory.mktemp("trained")
    hf = write_tiny_hf(folder / "base", tiny_config("qwen3_vl"))
    off = {
        n: (t * 1.5 if "layers.2.mlp.down" in n else t + 0.01 if "layers.0.self_attn.q_proj" in n else t)
        for n, t in hf.items()
    }
    write_tiny_hf(folder / "tuned", tiny_config("qwen3_vl"), tensors=off)
    return verify(folder / "base", folder / "tuned")


def page_of(report: Report, **sides: str) -> ReadPage:
    return ReadPage(as_html(report, **sides))


def made(text: str = "x", **changes: Any) -> Report:
    """A report with everything in it; every text that may come of a stranger's file is, or holds, this one."""
    return replace(
        Report(
            "verify",
            "different",
            [Fact("diagnosis", f"{text}\n{text}"), Fact(f"source {text}", text, "A")],
            [text],
            [
                Difference(text, "values", 3, (1, 2), 0.5, text, 1, 0.25),
                Difference(f"a {text}", "only in A", note=text),
            ],
            [Finding("wrong", "names", text, text, [text], 3), Finding("note", "files", text, text)],
            HeatMap(["0", "vision 0", ""], ["q", text], [[0.5, None], [None, 0.0], [float("inf"), 1e-5]]),
            {},
            text,
            [Step("serve", f"vllm serve {text}")],
        ),
        **changes,
    )


class TestNumbers:
    def test_those_of_the_map_are_the_reports(self, trained: Report) -> None:
        heat, found = trained.heat_map, {}
        assert heat
        for head, *rows in page_of(trained).tables["numbers"]:
            for name, *cells in rows:
                for column, cell in zip(head[1:], cells, strict=True):
                    if cell.text != "–":
                        found[name.text, column.text] = cell.number
        names = [f"layer {row}" if row.isdecimal() else row or "others" for row in heat.rows]
        known = {
            (name, column): value
            for name, cells in zip(names, heat.cells, strict=True)
            for column, value in zip(heat.columns, cells, strict=True)
            if value is not None
        }
        assert found == known and len(known) > 60
        assert found["layer 2", "down"] == pytest.approx(0.5, rel=0.01)
        assert [place for place, value in found.items() if value] == [("layer 0", "q"), ("layer 2", "down")]

    def test_a_cell_says_what_it_is(self, trained: Report) -> None:
        page = page_of(trained)
        numbers = sum(cell.number is not None for table in page.tables["numbers"] for row in table for cell in row)
        assert len(page.titles) == numbers == sum(tag[0] == "rect" for tag in page.tags)
        told = [title for title in page.titles if not title.endswith(": same")]
        assert told[1:] == ["layer 2, down: 0.5 relative to A"] and told[0].startswith("layer 0, q: 0.0")

    def test_those_of_the_tensors_are_the_reports(self, trained: Report) -> None:
        ((head, *rows),) = page_of(trained).tables["differences"]
        assert [cell.text for cell in head] == ["Tensor", "Kind", "Elements", "Largest", "Relative", "First at", "Note"]
        found = {
            (name.text, kind.text, *(cell.number for cell in numbers), first.text)
            for name, kind, *numbers, first, _ in rows
        }
        assert found == {
            (d.tensor, d.kind, d.count, d.max_abs, d.relative, str([*d.first])) for d in trained.differences
        }
        assert len(found) == 2

    def test_the_worst_tensor_comes_first_and_what_is_not_listed_is_counted(self) -> None:
        name = "n" * 10_000_000
        found = [Difference(name, "values", 1, (0,), 0.5)] * 300_000
        found[200_000] = Difference("worst", "values", 7, (0,), 2.0)
        text = as_html(made(differences=found))
        page = ReadPage(text)
        ((_, first, *rows),) = page.tables["differences"]
        assert (first[0].text, first[2].number, first[3].number) == ("worst", 7, 2.0)
        assert len(rows) == 999
        assert any("300,000 in all. The first 1,000 are shown" in words for words in page.said("p"))
        assert len(text) < 1_500_000

    @pytest.mark.parametrize(("layers", "rows"), [(94, 94), (4_000, 400)])
    def test_each_layer_has_a_row_as_long_as_a_page_holds_them(self, layers: int, rows: int) -> None:
        cells: list[list[float | None]] = [[0.0] for _ in range(layers)]
        cells[-1] = [0.125]
        page = page_of(made(heat_map=HeatMap([*map(str, range(layers))], ["q"], cells)))
        ((_, *lines),) = page.tables["numbers"]
        assert len(lines) == rows == len(page.titles)
        assert lines[-1][1].number == 0.125 and lines[-1][0].text.endswith(str(layers - 1))
        heights = [float(value or 0) for value in page.values["svg", "height"]]
        assert max(heights) < 900 and sum(tag[0] == "svg" for tag in page.tags) == -(-rows // 48)

    @pytest.mark.parametrize(
        ("value", "level"), [(0.0, 0), (1e-9, 1), (9.9e-4, 1), (1e-3, 2), (0.05, 3), (0.1, 4), (float("inf"), 4)]
    )
    def test_a_shade_is_that_of_the_legend(self, value: float, level: int) -> None:
        page = page_of(made(heat_map=HeatMap(["0"], ["q"], [[value]]), warnings=[]))
        assert page.values["g", "class"] == {f"l{level}"}
        legend = ["same", "below 0.001", "below 0.01", "below 0.1", "more"]
        assert [words for words in page.said("li") if words != "x"][-5:] == legend

    def test_what_differs_and_was_not_measured_is_not_the_same(self) -> None:
        page = page_of(made(heat_map=HeatMap(["0", "1"], ["q"], [[float("nan")], [0.0]])))
        assert page.titles == ["layer 0, q: differs, not measured", "layer 1, q: same"]
        assert page.said("text") == ["q", "layer 0", "?", "layer 1", "="]
        assert page.values["g", "class"] == {"l5", "l0"} and "differs, not measured" in page.said("li")
        ((_, (_, first), (_, second)),) = page.tables["numbers"]
        assert (first.text, second.text) == ("differs, not measured", "same")
        assert first.number is not None and isnan(first.number) and second.number == 0.0


class TestWords:
    def test_what_was_held_against_what_by_whom(self) -> None:
        page = page_of(made("x", result="different: 2 of 9 tensors"), a="runs/base", b="runs/tuned")
        assert page.said("h1") == ["different: 2 of 9 tensors"]
        assert "vlconv verify: different: 2 of 9 tensors" in page.said("title")
        assert page.said("code")[:2] == ["runs/base", "runs/tuned"]
        assert any(
            re.search(rf"vlconv {__version__} verify, \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", t) for t in page.said("dd")
        )

    def test_the_diagnosis_comes_first_a_line_for_each(self) -> None:
        facts = [Fact("source", "here", "A"), Fact("where", "there"), Fact("diagnosis", "one\ntwo")]
        page = page_of(made(facts=facts))
        assert page.said("dt")[1:5] == ["diagnosis", "where", "A source", "To serve"]
        assert page.said("p")[:4] == ["one", "  two", "there", "here"]

    def test_findings_warnings_and_steps(self) -> None:
        found = [Finding("wrong", "names", "2 are missing", "made up", ["a.b"], 2), Finding("note", "files", "f", "g")]
        page = page_of(made(findings=found, warnings=["be careful"]))
        ((_, wrong, note),) = page.tables["findings"]
        assert [cell.text for cell in wrong] == ["wrong", "2 are missinga.b… and 1 more", "made up"]
        assert [cell.text for cell in note] == ["note", "f", "g"]
        assert "be careful" in page.said("li") and "vllm serve x" in page.said("code")

    def test_no_difference_is_said_plainly(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path / "hf", tiny_config("qwen3"))
        page = page_of(verify(tmp_path / "hf"))
        assert "No difference was found." in page.said("p")
        assert not page.tables and not page.titles and page.values["header", "class"] == {"same"}
        assert "No difference was found." not in page_of(made()).said("p")

    @pytest.mark.parametrize(
        ("status", "says"), [("planned", "A dry run: nothing was compared yet."), ("different", None)]
    )
    def test_that_nothing_differs_is_said_of_the_same_alone(self, status: str, says: str | None) -> None:
        said = page_of(made(status=status, differences=[], findings=[], heat_map=None)).said("p")
        assert "No difference was found." not in said and (says is None or says in said)

    def test_a_column_that_nothing_is_in_is_left_out(self) -> None:
        whole = page_of(made()).tables["differences"][0][0]
        assert [cell.text for cell in whole[6:]] == ["NaN", "Note"]


HOSTILE = [
    "<script>alert(1)</script>",
    "</title></style></svg><img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% include 'style.css' %}",
    "]]><!-- &lt;script&gt; -->",
    "\x00\x1b[2J\u202e\u2066\u200b\ufeff\ud800",
]


class TestHostile:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_no_tag_and_no_attribute_comes_of_data(self, text: str) -> None:
        page = page_of(made(text), a=text, b=text)
        harmless = page_of(made("x"), a="x", b="x")
        assert page.tags == harmless.tags
        assert page.values.keys() == harmless.values.keys()
        assert all(not name.startswith("on") for _, *names in page.tags for name in names)

    @pytest.mark.parametrize("text", HOSTILE[:-1])
    def test_it_is_read_as_it_is(self, text: str) -> None:
        page = page_of(made(text), a=text, b=text)
        assert page.said("h1") == [text]
        assert [cell.text for row in page.tables["differences"][0] for cell in row].count(text) == 3
        assert sum(text in title for title in page.titles) == 2

    def test_nothing_in_it_hides(self) -> None:
        page = as_html(made(HOSTILE[-1]), a=HOSTILE[-1], b=HOSTILE[-1])
        assert {unicodedata.category(c) for c in page if c != "\n"}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
        assert "\\u202e" in page and "\\x1b[2J" in page
        page.encode()

    def test_its_length_is_bounded(self) -> None:
        long = "y<" * 5_000_000
        found = Finding("wrong", "names", long, long, [long] * 1000, 1000)
        text = as_html(made(long, warnings=[long] * 5, findings=[found] * 5), a=long, b=long)
        assert len(text) < 1_000_000


class TestAlone:
    def test_it_loads_nothing_and_runs_nothing(self) -> None:
        text = as_html(made())
        page = ReadPage(text)
        assert "default-src 'none'; style-src 'unsafe-inline'" in page.values["meta", "content"]
        assert {tag for tag, *_ in page.tags}.isdisjoint(
            {"script", "link", "img", "iframe", "a", "base", "form", "use"}
        )
        assert not re.search(r"url\(|@import|https?:|src=|href=", text)

    def test_readers_that_do_not_look_are_told_as_much(self) -> None:
        page = page_of(made())
        assert page.values["html", "lang"] == {"en"}
        assert page.values["th", "scope"] == {"col", "row"}
        assert all("aria-label" in names for tag, *names in page.tags if tag == "svg")
        levels = [tag for tag, *_ in page.tags if tag in ("h1", "h2", "h3")]
        assert levels[0] == "h1" and levels.count("h1") == 1 and "h2" in levels

    @pytest.mark.parametrize("scheme", range(3), ids=["light", "dark", "print"])
    def test_every_shade_can_be_read(self, scheme: int) -> None:
        """WCAG's contrast of 4.5 between a number and its cell, and of words and the page."""
        block = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)[scheme]
        colour = dict(re.findall(r"--(\w+): (#\w+);", block))
        pairs = [(f"l{n}", f"t{n}") for n in range(6)]
        pairs += [("paper", name) for name in ("ink", "faint", "good", "bad", "care")] + [
            ("box", "ink"),
            ("box", "faint"),
        ]
        assert {pair: ratio for pair in pairs if (ratio := contrast(*(colour[name] for name in pair))) < 4.5} == {}


def contrast(first: str, second: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
