"""`make pictures`: docs/pictures/*.svg, what a terminal of 80 columns shows of real runs on a tiny checkpoint.

Each command runs in a pseudo-terminal, as for a user; rich draws what it said. With a directory as argument the
pictures go there. A command that ends otherwise than expected stops it all. report.png is the page of a real `verify
--report` as a browser shows it, and stays as it is where none of BROWSERS is installed.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import torch
from rich.ansi import AnsiDecoder
from rich.console import Console
from tiny import tiny_config, write_tiny_hf
from trainers.places import saved_names
from trainers.saving import save

COLUMNS = 80
OFFICIAL, SAVED, MINE = "Qwen3-VL-8B-Instruct", "global_step_100/actor", "Qwen3-VL-mine"

PICTURES = {
    "inspect": (("inspect", SAVED), 0),
    "convert": (("mcore2hf", SAVED, MINE, "--reference", OFFICIAL), 0),
    "verify": (("verify", OFFICIAL, MINE), 1),
}
"""Name of a picture -> arguments, and the exit code that they end with. They run in this order."""


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = "900,1168"
"""Columns and rows of pixels of report.png."""

BASE, TUNED = "Qwen3-VL-2B-Instruct", "Qwen3-VL-2B-tuned"
REPORT = ("verify", BASE, TUNED, "--report", "changes.html")


def main() -> int:
    """Make all pictures."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "pictures")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vlconv-pictures-") as folder:
        prepare(Path(folder))
        for name, (arguments, code) in PICTURES.items():
            ended, said = in_terminal(Path(folder), *arguments)
            if ended != code:
                print(said, file=sys.stderr)
                print(f"vlconv {' '.join(arguments)} ended with {ended}, not {code}", file=sys.stderr)
                return 1
            (target / f"{name}.svg").write_text(picture(f"vlconv {' '.join(arguments)}", said))
            print(target / f"{name}.svg")
        page = report(Path(folder))
        if browser := next(filter(None, map(shutil.which, BROWSERS)), None):
            photograph(browser, page, target / "report.png")
            print(target / "report.png")
        else:
            print(f"report.png is not drawn: none of {', '.join(BROWSERS)} is installed")
    return 0


def prepare(folder: Path) -> None:
    """A release of tiny geometry, and what was trained from it: other numbers in the language model.

    The reference is named in the command: found beside the checkpoint it would be shown with a path of this machine.
    """
    config = tiny_config("qwen3_vl")
    hf = write_tiny_hf(folder / OFFICIAL, config)
    trained = {n: t * 1.01 if n.startswith("model.language_model.") else t for n, t in hf.items()}
    save(folder / SAVED / "dist_ckpt", saved_names("mbridge", config, trained))


def report(folder: Path) -> Path:
    """The page of a tiny model of 28 layers and of what training made of it: later layers have moved further."""
    config, random = tiny_config("qwen3_vl", text={"num_hidden_layers": 28}), torch.Generator().manual_seed(0)
    hf = write_tiny_hf(folder / BASE, config)

    def moved(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if ".layers." not in name or "norm" in name:
            return tensor
        layer = int(name.split(".layers.")[1].partition(".")[0])
        far = 10 ** (layer / 10 - 4) * (1 + ("mlp" in name) + 2 * ("down" in name))
        return tensor + (far * tensor.std() * torch.randn(tensor.shape, generator=random)).to(tensor.dtype)

    write_tiny_hf(folder / TUNED, config, tensors={name: moved(name, tensor) for name, tensor in hf.items()})
    ended, said = in_terminal(folder, *REPORT)
    assert ended == 1, said
    return folder / "changes.html"


def photograph(browser: str, page: Path, target: Path) -> None:
    """A page as a browser without a screen shows it."""
    with tempfile.TemporaryDirectory(prefix="vlconv-browser-") as profile:
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WINDOW}")
        command = [browser, *options, f"--user-data-dir={profile}", f"--screenshot={target}", page.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def in_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command before a terminal; its exit code and all that it wrote, escapes included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1"}
    env = {name: value for name, value in env.items() if name not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    command = [sys.executable, "-m", "vlconv", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # so Linux says that nobody holds the other end any more
        pass
    os.close(ours)
    return process.wait(), said.decode(errors="replace")


def shown(said: str) -> list[str]:
    """The lines that stay on the screen: what was written over or taken back, as a bar is, is gone."""
    lines = [""]
    for piece in said.replace("\r\n", "\n").replace("\x1b[?25l", "").replace("\x1b[?25h", "").split("\n"):
        *ups, rest = piece.split("\x1b[1A")
        del lines[max(1, len(lines) - len(ups)) :]
        lines[-1] = rest.rpartition("\x1b[2K")[2].rpartition("\r")[2]
        lines.append("")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def picture(command: str, said: str) -> str:
    """An SVG of a command and what it said."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(f"$ {command}", style="bold", highlight=False)
    for line in AnsiDecoder().decode("\n".join(shown(said))):
        console.print(line, highlight=False)
    return console.export_svg(title="vlconv", unique_id="vlconv")


if __name__ == "__main__":
    sys.exit(main())
