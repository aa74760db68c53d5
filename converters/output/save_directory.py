"""An iteration that is added to a save directory: what stays there, and what the tracker file says then."""

from __future__ import annotations

from ..errors import TargetError, shown, shown_path
from ..formats.directory.contents import HF_FILES, iterations
from ..formats.directory.locate import TRACKER, tracker_word
from ..report import Report
from .staging.atomic_swap import Step
from .target import Target

BRIDGE = "latest_train_state.pt"
LISTED = 5


def check_addition(step: Step) -> None:
    """An `iter_N` has a place in that save directory.

    Raises:
        TargetError: its trainer names its iterations otherwise, so that a tracker file would name two of them.
    """
    save_directory = step.place.parent
    other = next((p.name for p in sorted(save_directory.iterdir()) if p.name.startswith("global_step_")), None)
    if other:
        raise TargetError(
            f"{shown_path(save_directory)} holds {shown(other)}: its trainer would not find {step.part} there",
            "Name another target.",
        )


def gather(step: Step) -> None:
    """Put config and tokenizer files into the iteration: those of the save directory are its trainer's, and stay.

    A reader looks inside the iteration first.
    """
    if (step.new / HF_FILES).is_dir():
        (step.new / HF_FILES).rename(step.written / HF_FILES)


def describe_addition(report: Report, target: Target, step: Step) -> None:
    """What the iteration is added to, and what becomes of the tracker file."""
    save_directory = step.place.parent
    others = [p.name for p in iterations(save_directory) if p.name != step.part]
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    beside = f"beside {', '.join(map(shown, others[:LISTED]))}{more}" if others else "with no other iteration"
    report.fact(
        "added_to",
        f"{shown_path(save_directory)}: {step.part} {beside}; config and tokenizer files go inside it, nothing else "
        "changes",
        added_to={"path": str(save_directory), "iteration": step.part, "others": others},
    )
    now, then = tracker_word(save_directory), str(target.iteration) if target.set_latest else None
    report.fact("tracker", _tracker_text(now, str(target.iteration), target.set_latest), tracker=then or now)
    if target.set_latest and (save_directory / BRIDGE).is_file():
        report.warnings.append(
            f"{BRIDGE}, by which Megatron-Bridge finds the latest iteration, stays as it is: only {TRACKER} is set"
        )


def _tracker_text(now: str | None, asked: str, sets: bool) -> str:
    if now is None:
        return f"{TRACKER} is new and says {asked}" if sets else "there is none, and none is written: --set-latest does"
    if now == asked:
        return f"{TRACKER} says {asked}, which is this iteration"
    if sets:
        return f"{TRACKER} says {shown(now)}, and will say {asked} once the iteration is there"
    return f"{TRACKER} says {shown(now)}, and stays so: --set-latest lets it say {asked}"
