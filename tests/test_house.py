"""The house's own rules: who imports whom, what is imported when, what is packaged. The table is ARCHITECTURE.md's."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from house_tree import tree

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for folder in ("cli", "converters") for p in (ROOT / folder).rglob("*.py"))
NAMES = [path.relative_to(ROOT) for path in SOURCES]

HEAVY = {"torch", "transformers", "megatron", "huggingface_hub"}
"""Never imported by importing a module of ours."""

FILES_AND_WITNESSES = {
    "safetensors": ("converters/formats/", "converters/verification/"),
    "torch": ("converters/ranks/", "converters/verification/", "converters/live/exchange.py"),
    "megatron": ("converters/verification/",),
    "transformers": ("converters/verification/",),
}
"""Libraries of files, of witnesses and of many processes, and the rooms that may import them."""

FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "yaml.unsafe_load", "yaml.full_load"}
"""What would run, or believe, a stranger's file."""


class Import(NamedTuple):
    """One imported module, by its full name."""

    path: str
    line: int
    name: str
    on_load: bool  # whether loading the module is enough

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def package(path: Path) -> str:
    """The package a file belongs to, as installed."""
    parts = path.relative_to(ROOT).parent.parts
    return ".".join(("vlconv", *(parts if parts[0] == "converters" else parts[1:])))


def statements(node: ast.AST, on_load: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every statement, and whether it runs when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
        yield child, on_load
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield from statements(child, on_load and not inside and not typing)


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, inside functions too; `from x import y` as x and as x.y."""
    where = str(path.relative_to(ROOT))
    for node, on_load in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(where, node.lineno, alias.name, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = package(path).split(".")
            base = home[: len(home) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(where, node.lineno, module, on_load)
            yield from (Import(where, node.lineno, f"{module}.{alias.name}", on_load) for alias in node.names)


@cache
def all_imports() -> list[Import]:
    """Of all our files; by the one worker that asks."""
    return [i for path in SOURCES for i in imports(path)]


def under(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def rooms_table() -> dict[str, str]:
    """Room -> the cell "may import" of its row in ARCHITECTURE.md; rooms are told by their name in backquotes."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `converters/([\w/.]+?)/?` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    return {name: cell.strip() for name, cell in rows}


ROOMS = rooms_table()


def room_of(name: str) -> str:
    """The room of a file's path or of a module's name: "formats/dcp" of "converters/formats/dcp/read.py"."""
    dotted = name.removeprefix("vlconv.").removesuffix(".py").replace("/", ".").removeprefix("converters").strip(".")
    parts = [part for part in dotted.split(".") if part != "__init__"]
    found = ("/".join(parts[:n]) for n in range(len(parts), 0, -1))
    return (
        next((room for room in found if room in ROOMS), f"{parts[0]}.py" if f"{parts[0]}.py" in ROOMS else "")
        if parts
        else "__init__.py"
    )


def may_import(room: str) -> list[str]:
    """The rooms that a room may import: those its row names, in backquotes, and what is inside it."""
    named = re.findall(r"`([\w/.]+?)/?`", ROOMS[room])
    return [*named, *(other for other in ROOMS if other.startswith(f"{room}/"))]


def fine(wrong: list[Import]) -> None:
    assert not wrong, "\n".join(map(str, wrong))


class TestImports:
    def test_there_are_some(self) -> None:
        assert len(all_imports()) > 50

    def test_cli_meets_only_the_package_root_of_converters(self) -> None:
        api = {n.removeprefix("vlconv.converters.") for n in exported()}
        seen = [i for i in all_imports() if i.path.startswith("cli/") and under(i.name, "vlconv.converters")]
        fine([i for i in seen if i.name.removeprefix("vlconv.converters").lstrip(".") not in {"", *api}])

    def test_converters_never_meets_cli(self) -> None:
        fine(
            [
                i
                for i in all_imports()
                if i.path.startswith("converters/")
                and i.name.startswith("vlconv")
                and not under(i.name, "vlconv", "vlconv.converters")
            ]
        )
        fine(
            [
                i
                for i in all_imports()
                if i.path.startswith("converters/")
                and under(i.name, "vlconv.app", "vlconv.run", "vlconv.render", "vlconv.progress")
            ]
        )

    @pytest.mark.parametrize("path", [name for name in map(str, NAMES) if name.startswith("converters/")])
    def test_each_room_imports_what_its_row_says(self, path: str) -> None:
        """The table "Rooms" of ARCHITECTURE.md, row by row."""
        own, allowed = room_of(path), may_import(room_of(path))
        ours = [i for i in all_imports() if i.path == path and under(i.name, "vlconv.converters")]
        fine([i for i in ours if (theirs := room_of(i.name)) not in (own, *allowed) and theirs])

    def test_the_table_has_a_row_for_every_room(self) -> None:
        assert set(ROOMS) == {room_of(i.path) for i in all_imports() if i.path.startswith("converters/")}

    def test_no_room_is_above_a_room_that_imports_it(self) -> None:
        below: dict[str, set[str]] = {}  # a folder and what is inside it are one room here
        for room in ROOMS:
            below[room] = {other for other in may_import(room) if not other.startswith(f"{room}/")}
        for room, others in below.items():
            assert not [other for other in others if room in below[other]], room

    def test_only_cli_talks(self) -> None:
        fine(
            [
                i
                for i in all_imports()
                if not i.path.startswith("cli/") and under(i.name, "typer", "rich", "click", "logging", "tqdm")
            ]
        )

    @pytest.mark.parametrize("library", FILES_AND_WITNESSES)
    def test_libraries_stay_in_their_rooms(self, library: str) -> None:
        rooms = FILES_AND_WITNESSES[library]
        fine([i for i in all_imports() if not i.path.startswith(rooms) and under(i.name, library)])

    def test_nothing_heavy_is_imported_on_load(self) -> None:
        fine([i for i in all_imports() if i.on_load and under(i.name, *HEAVY)])

    def test_no_second_copy_under_another_name(self) -> None:
        fine([i for i in all_imports() if under(i.name, "converters", "cli", "tests")])
        fine(
            [i for path in (ROOT / "tests").rglob("*.py") for i in imports(path) if under(i.name, "converters", "cli")]
        )

    def test_inside_converters_imports_are_relative(self) -> None:
        absolute = [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for path in SOURCES
            if "converters" in path.parts
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and not node.level and under(node.module or "", "vlconv")
        ]
        assert not absolute


def exported() -> set[str]:
    """What converters/__init__.py says is public."""
    for node in ast.parse((ROOT / "converters/__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {f"vlconv.converters.{name}" for name in ast.literal_eval(node.value)}
    return set()


class TestSource:
    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_nothing_runs_what_a_file_says(self, path: Path) -> None:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [
            f"{path.name}:{c.lineno} calls {ast.unparse(c.func)}"
            for c in calls
            if ast.unparse(c.func) in FORBIDDEN_CALLS
        ]

    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_every_module_says_what_it_is_for(self, path: Path) -> None:
        source = path.read_text()
        assert not source.strip() or ast.get_docstring(ast.parse(source))


class TestPackaging:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def test_packages_are_the_folders(self) -> None:
        listed = self.project["tool"]["setuptools"]["packages"]
        assert sorted(listed) == sorted({package(path) for path in SOURCES})

    def test_types_are_shipped(self) -> None:
        assert (ROOT / "cli/py.typed").is_file()
        assert "py.typed" in self.project["tool"]["setuptools"]["package-data"]["vlconv"]

    def test_what_is_no_source_is_shipped_too(self) -> None:
        """Files of a package that its code reads: pyproject.toml names each."""
        named = self.project["tool"]["setuptools"]["package-data"]
        listed = {f"{package.replace('.', '/')}/{file}" for package, files in named.items() for file in files}
        others = {
            str(path.relative_to(ROOT / "cli"))
            for path in tracked()
            if path.is_relative_to(ROOT / "cli") and path.suffix != ".py" and not path.is_symlink()
        }
        assert listed == {f"vlconv/{other}" for other in others}
        assert not [p for p in tracked() if p.is_relative_to(ROOT / "converters") and p.suffix != ".py"]

    def test_what_is_imported_is_a_dependency(self) -> None:
        names = {re.split(r"[^\w-]", line)[0] for line in self.project["project"]["dependencies"]}
        modules = {"pyyaml": "yaml", "megatron-core": "megatron"}
        known = {modules.get(name, name) for name in names} | {"vlconv"}
        fine([i for i in all_imports() if i.name.split(".")[0] not in known and not standard(i.name)])

    def test_the_sdist_holds_every_file(self) -> None:
        """The folders of packages are in it anyway, and what pyproject.toml names; the rest MANIFEST.in names."""
        lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
        named = {name for word, *names in filter(None, lines) if word == "include" for name in names}
        grafted = {name for word, *names in filter(None, lines) if word == "graft" for name in names}
        project = self.project["project"]
        named |= {"pyproject.toml", project["readme"], *project["license-files"]}
        paths = [path.relative_to(ROOT) for path in tracked()]
        assert not [p for p in paths if str(p) not in named and p.parts[0] not in {"cli", "converters", *grafted}]

    def test_the_version_is_in_the_changelog(self) -> None:
        from vlconv import __version__

        assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def standard(name: str) -> bool:
    import sys

    return name.split(".")[0] in sys.stdlib_module_names


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    assert tree() in (ROOT / "ARCHITECTURE.md").read_text(), "run: python tests/house_tree.py"


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_path_of_somebodys_machine() -> None:
    machine = re.compile(r"(?<![\w.…*])/(?:home|root|Users|work|farm|tmp|mnt)/\w")
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if machine.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
