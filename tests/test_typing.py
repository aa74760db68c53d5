"""What a type checker makes of a script that uses vlconv: it sees the package by the folder of an editable install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LINKS = Path(__file__).parent.parent / ".package"

SCRIPT = """
from vlconv import Report, VlconvError, hf2mcore, mcore2hf, verify

report: Report = mcore2hf("a", "b", dtype="float32", carry="model.visual.", progress=lambda done, total: None)
hf2mcore("a", "b", format="torch", tensor_model_parallel_size=2)
verify("a", references="c")
"""

WRONG = """
from vlconv import mcore2hf

mcore2hf("a", "b", dtyp="float32")
mcore2hf("a", "b", experts="some")
found: int = mcore2hf("a", "b")
"""


def mypy(directory: Path, script: str) -> tuple[int, str]:
    (directory / "script.py").write_text(script)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports",
        "silent",
        "--cache-dir",
        str(directory / "cache"),
        "script.py",
    ]
    env = os.environ | {"MYPYPATH": str(LINKS)}
    ran = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout


def test_types_are_seen(tmp_path: Path) -> None:
    code, said = mypy(tmp_path, SCRIPT)
    assert code == 0, said
    code, said = mypy(tmp_path, WRONG)
    assert code == 1 and "Found 3 errors" in said
    assert 'Unexpected keyword argument "dtyp" for "mcore2hf"; did you mean "dtype"?' in said
    assert "expected \"Literal['hub', 'per-expert']\"" in said
