"""The tree of ARCHITECTURE.md: each source file with the first line of its docstring. Run it to write the tree anew."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- tree: python tests/house_tree.py -->\n```text\n", "```\n<!-- end of tree -->\n"


def tree() -> str:
    """A line per folder and file of cli/ and converters/."""
    return "".join(_folder(ROOT / name, 0) for name in ("cli", "converters"))


def _folder(folder: Path, depth: int) -> str:
    own = _said(folder / "__init__.py")
    lines = [_line(f"{folder.name}/", own, depth)]
    files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    lines += [_line(path.name, _said(path), depth + 1) for path in files]
    inner = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and any(path.glob("*.py"))
    )
    return "".join(lines) + "".join(_folder(path, depth + 1) for path in inner)


def _line(name: str, said: str, depth: int) -> str:
    return f"{'  ' * depth}{name:<{28 - 2 * depth}} {said}".rstrip() + "\n"


def _said(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) if path.exists() else None
    return (text or "").partition("\n")[0]


def main() -> None:
    """Write the tree into ARCHITECTURE.md."""
    path = ROOT / "ARCHITECTURE.md"
    before, _, rest = path.read_text().partition(BEGIN)
    path.write_text(before + BEGIN + tree() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
