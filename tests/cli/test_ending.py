"""A signal while the command line is loaded, at work, done, and gone: an exit code, and never a traceback."""

from __future__ import annotations

import signal
from pathlib import Path

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
TESTS = str(Path(__file__).parent.parent)

EACH = """
import os, signal, sys
from vlconv import __main__, ending
sys.path.append({tests!r})
from stepping import Steps

begin = ending.begin

def forked(number, at):
    if process := os.fork():
        return process
    steps = Steps(at, lambda: signal.raise_signal(number))

    def begun():
        begin()
        sys.setprofile(steps.profile)

    ending.begin = begun
    sys.argv = ["vlconv", "--version"]
    try:
        __main__.main()
    finally:
        sys.setprofile(None)
        if not at:
            print(steps.seen, file=sys.stderr)

for line in sys.stdin:
    number, at = map(int, line.split())
    _, status = os.waitpid(forked(number, at), 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""
