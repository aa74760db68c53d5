"""Makes, measures, shows and removes."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import comparisons, curves, geometry, machine, making, process, show, starts
from .asked import Asked, asked
from .rounds import Rounds
from .scratch import NoRoom, scratch

NAME = "bench.json"


def main() -> int:
    """The whole run; what is done by then is in bench.json, whatever comes."""
    options = asked()
    if options.cold and machine.in_memory(options.work):
        print(f"bench: {options.work} lies in memory, where nothing is ever cold", file=sys.stderr)
        return 2
    config = geometry.asked(options.model, options.layers, options.quick)
    document = _document(options, config)
    try:
        with scratch(options.work, _need(options, config)) as work:
            for part in _measured(options, config, work):
                for name, value in part.items():
                    document[name] = [*document[name], value] if name in document else value
                _save(document, options.out)
    except NoRoom as fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 2
    except process.Failed as fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    show.show([document], options.out)
    return 0


def _document(options: Asked, config: geometry.Config) -> dict[str, Any]:
    left_out = {name: comparisons.missing(name) for name in comparisons.RIVALS if options.rivals}
    return {
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.facts(options.work),
        "left_out": {name: f"{', '.join(absent)}: not installed" for name, absent in left_out.items() if absent},
        "comparisons": [],
        "curves": [],
    }


def _need(options: Asked, config: geometry.Config) -> int:
    """Bytes that lie on the disk at once: both forms, an output, and legacy files; or those of the curves."""
    forms = (3 + ("legacy" in options.only)) * geometry.nbytes(config) if _compares(options) else 0
    grown = (curves.QUICK if options.quick else curves.FULL).need if options.curves else 0
    many_chunks = 2_000_000_000 if options.curves or "planning" in options.only else 0
    return int(1.01 * max(forms, grown, many_chunks)) + (64 << 20)


def _compares(options: Asked) -> bool:
    return any(name in options.only for name in comparisons.NAMES)


def _measured(options: Asked, config: geometry.Config, work: Path) -> Iterator[dict[str, Any]]:
    """Parts of the document, as they are done; what several parts have under one name is a list."""
    if _compares(options):
        yield from _compared(options, config, work)
    if "starts" in options.only:
        yield {"starts": starts.starts(work / "starts", 3 if options.quick else starts.TIMES, _say)}
    if "planning" in options.only:
        tp, times = (1, 1) if options.quick else (starts.TP, 3)
        yield {"planning": starts.planning(work / "planning", tp, times, _say)}
        shutil.rmtree(work / "planning")
    if options.curves:
        steps = curves.QUICK if options.quick else curves.FULL
        for curve in curves.Curves(work / "curves", steps, _say).some(options.curves):
            yield {"curves": curve}


def _compared(options: Asked, config: geometry.Config, work: Path) -> Iterator[dict[str, Any]]:
    _say(f"making {geometry.nbytes(config) / 1e9:.2f} GB in both forms")
    made = making.make(work / "model", config)
    yield {"model": _model(options, made)}
    forms = comparisons.Forms(made, work / "legacy", work / "out", options.threads, options.rivals)
    rounds = Rounds(forms.target, options.pairs, options.rival_pairs, _say)
    for comparison in comparisons.comparisons(forms, options.only):
        for cold in (False, True) if options.cold else (False,):
            yield {"comparisons": rounds.run(comparison, cold)}
    shutil.rmtree(work / "model")


def _model(options: Asked, made: making.Made) -> dict[str, Any]:
    return {
        "name": options.model + (" quick" if options.quick else ""),
        "release": geometry.MODELS[options.model],
        "layers": made.config["text_config"]["num_hidden_layers"],
        "bytes": made.nbytes,
        "tensors": len(geometry.specs(made.config)),
        "hf_files": len(list(made.hf.glob("*.safetensors"))),
        "mcore_files": len(list(made.mcore.glob("*.distcp"))),
        "written_by": made.written_by,
    }


def _say(text: str) -> None:
    print(text, flush=True)


def _save(document: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / NAME).write_text(json.dumps(document, indent=1) + "\n")
