"""The house's own rules: who imports whom, what is imported when, what is packaged. The table is ARCHITECTURE.md's."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for folder in ("cli", "converters") for p in (ROOT / folder).rglob("*.py"))

HEAVY = {"torch", "transformers", "megatron", "huggingface_hub"}
"""Never imported by importing a module of ours."""

FILES_ONLY = ("safetensors", "torch.distributed.checkpoint", "megatron")
"""Imported in formats/ alone."""

WITNESSES = {"converters/witness.py"}
"""Where a foreign library is called to contradict us."""

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


def walk(node: ast.AST, on_load: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        yield child, on_load
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield from walk(child, on_load and not inside and not typing)


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, inside functions too; `from x import y` as x and as x.y."""
    where = str(path.relative_to(ROOT))
    for node, on_load in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(where, node.lineno, alias.name, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = package(path).split(".")
            base = home[: len(home) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(where, node.lineno, module, on_load)
            yield from (Import(where, node.lineno, f"{module}.{alias.name}", on_load) for alias in node.names)


IMPORTS = [i for path in SOURCES for i in imports(path)]


def under(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def fine(wrong: list[Import]) -> None:
    assert not wrong, "\n".join(map(str, wrong))


class TestImports:
    def test_there_are_some(self) -> None:
        assert len(IMPORTS) > 50

    def test_cli_meets_only_the_package_root_of_converters(self) -> None:
        api = {n.removeprefix("vlconv.converters.") for n in exported()}
        seen = [i for i in IMPORTS if i.path.startswith("cli/") and under(i.name, "vlconv.converters")]
        fine([i for i in seen if i.name.removeprefix("vlconv.converters").lstrip(".") not in {"", *api}])

    def test_converters_never_meets_cli(self) -> None:
        fine([i for i in IMPORTS if i.path.startswith("converters/") and i.name.startswith("vlconv") and not under(i.name, "vlconv", "vlconv.converters")])
        fine([i for i in IMPORTS if i.path.startswith("converters/") and under(i.name, "vlconv.app", "vlconv.run", "vlconv.render", "vlconv.progress")])

    @pytest.mark.parametrize(
        ("room", "never"),
        [
            ("converters/formats/", ["models", "layouts", "convert", "verifying", "plan", "rules", "write", "compare", "output", "config", "sides"]),
            ("converters/models/", ["formats", "layouts", "convert", "verifying", "plan", "write", "compare", "output", "config", "sides"]),
            ("converters/layouts/", ["formats", "convert", "verifying", "plan", "write", "compare", "output", "config", "sides"]),
            ("converters/config/", ["formats", "layouts", "convert", "verifying", "plan", "rules", "write", "compare", "output", "sides"]),
            ("converters/output.py", ["formats", "models", "layouts"]),
            ("converters/swap.py", ["formats", "models", "layouts"]),
            ("converters/rules.py", ["formats", "models", "layouts"]),
            ("converters/plan.py", ["models", "layouts"]),
            ("converters/write.py", ["models", "layouts"]),
            ("converters/compare.py", ["models", "layouts"]),
        ],
    )
    def test_rooms_know_only_what_is_below_them(self, room: str, never: list[str]) -> None:
        fine([i for i in IMPORTS if i.path.startswith(room) and under(i.name, *(f"vlconv.converters.{n}" for n in never))])

    @pytest.mark.parametrize("name", ["tensors", "errors", "report", "options"])
    def test_the_vocabulary_stands_on_nothing(self, name: str) -> None:
        fine([i for i in IMPORTS if i.path == f"converters/{name}.py" and under(i.name, "vlconv")])

    def test_only_cli_talks(self) -> None:
        fine([i for i in IMPORTS if not i.path.startswith("cli/") and under(i.name, "typer", "rich", "click", "logging", "tqdm")])

    def test_only_formats_touches_the_formats_libraries(self) -> None:
        fine([i for i in IMPORTS if not i.path.startswith("converters/formats/") and i.path not in WITNESSES and under(i.name, *FILES_ONLY)])

    def test_nothing_heavy_is_imported_on_load(self) -> None:
        fine([i for i in IMPORTS if i.on_load and under(i.name, *HEAVY)])

    def test_no_second_copy_under_another_name(self) -> None:
        fine([i for i in IMPORTS if under(i.name, "converters", "cli", "tests")])
        fine([i for path in (ROOT / "tests").rglob("*.py") for i in imports(path) if under(i.name, "converters", "cli")])

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
        assert not [f"{path.name}:{c.lineno} calls {ast.unparse(c.func)}" for c in calls if ast.unparse(c.func) in FORBIDDEN_CALLS]

    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_every_module_says_what_it_is_for(self, path: Path) -> None:
        source = path.read_text()
        assert not source.strip() or ast.get_docstring(ast.parse(source))


class TestPackaging:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def test_packages_are_the_folders(self) -> None:
        listed = self.project["tool"]["setuptools"]["packages"]
        assert sorted(listed) == sorted({package(path) for path in SOURCES})
        assert all((ROOT / "converters" / p).is_dir() for p in ("config", "formats", "layouts", "models"))

    def test_types_are_shipped(self) -> None:
        assert (ROOT / "cli/py.typed").is_file()
        assert "py.typed" in self.project["tool"]["setuptools"]["package-data"]["vlconv"]

    def test_what_is_imported_is_a_dependency(self) -> None:
        names = {re.split(r"[^\w-]", line)[0] for line in self.project["project"]["dependencies"]}
        modules = {"pyyaml": "yaml", "megatron-core": "megatron"}
        known = {modules.get(name, name) for name in names} | {"vlconv"}
        fine([i for i in IMPORTS if i.name.split(".")[0] not in known and not standard(i.name)])

    def test_the_version_is_in_the_changelog(self) -> None:
        from vlconv import __version__

        assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def standard(name: str) -> bool:
    import sys

    return name.split(".")[0] in sys.stdlib_module_names


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
