"""An output of mcore2hf, uploaded once it is found to be what was written."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from ..errors import HubFault, OptionError, naming_missing_libraries, shown, shown_path, sized
from ..formats.directory.contents import MANIFEST
from ..formats.directory.unfinished import check_finished
from ..formats.open_files import is_file
from ..hub.ids import hub_id
from ..hub.push import check_reach, push
from ..manifest.find import Found, read_manifest
from ..options import PushOptions
from ..report import Observer, Phase, Report, tell_phase
from ..verification.files import compare_files
from ..workers import workers_of


@naming_missing_libraries()
def refuse_out_of_reach(repo: str) -> None:
    """Before a long run: refuse a Hub that cannot be reached. Errors as `check_reach`."""
    check_reach(repo)


@naming_missing_libraries()
def upload(directory: Path, repo: str, options: PushOptions, observer: Observer) -> Report:
    """Upload a directory that mcore2hf wrote, in one commit.

    Args:
        directory: with a vlconv.json, which every file is held against before.
        repo: "org/name"; made, and private, where it is not there.

    Raises:
        OptionError: a repository cannot be called so.
        HubFault: it is not what was written, or the Hub does not take it; the directory stays as it is.
    """
    named = hub_id(repo)
    if named is None or "/" not in named.repo or named.revision:
        raise OptionError(f"{shown(repo)} is no repository such as my-org/Qwen3-VL-mine")
    report = Report("push", "planned")
    check_finished(directory)
    found = _manifest(directory)
    names = [*found.manifest.files, MANIFEST]
    nbytes = sum(file.nbytes for file in found.manifest.files.values())
    report.fact("source", f"{shown_path(directory)}: {len(names)} files, {sized(nbytes)}", source=str(directory))
    check_reach(repo)
    observer.planned(report)
    if not options.dry_run:
        add_upload(report, directory, repo, options.threads, observer)
        report.status = "done"
    return report


def add_upload(report: Report, directory: Path, repo: str, threads: int | None, observer: Observer) -> None:
    """Upload a directory that stands, and tell so in a report. Arguments and errors as `upload`."""
    again = f"vlconv push {quote(shown_path(directory))} {quote(shown(repo))}"
    try:
        tell_phase(observer, Phase.UPLOADING)  # signals no longer wait; told again once the files are compared
        found = _manifest(directory)
        _check_unchanged(found, repo, threads, observer)
        tell_phase(observer, Phase.UPLOADING)
        names = [*found.manifest.files, MANIFEST]
        pushed = push(directory, names, repo, "Converted by vlconv")
    except BaseException as fault:
        fault.add_note(f"The output stands in {shown_path(directory)}. Upload it with: {again}")
        raise
    deleted = f", {len(pushed.deleted)} files of earlier weights deleted" if pushed.deleted else ""
    report.fact(
        "uploaded",
        f"{shown(pushed.url)}, {len(names)} files in one commit {shown(pushed.commit, 13)}{deleted}"
        + ("; it is private" if pushed.private else ""),
        uploaded={"repo": repo, **pushed._asdict()},
    )


def _manifest(directory: Path) -> Found:
    if not is_file(directory / MANIFEST):
        raise HubFault(
            f"{shown_path(directory)} has no {MANIFEST}, so nothing shows that it is complete",
            "Give a directory that mcore2hf wrote, without --no-manifest.",
        )
    manifest = read_manifest(directory)
    if manifest.made.get("command") != "mcore2hf":
        raise HubFault(
            f"{shown_path(directory)} was made by {shown(manifest.made.get('command'))}: it is no Hugging Face model",
            "Give a directory that mcore2hf wrote.",
        )
    return Found(manifest, directory)


def _check_unchanged(found: Found, repo: str, threads: int | None, observer: Observer) -> None:
    differences = compare_files(found, workers_of(threads, None).threads, observer)
    if differences:
        raise HubFault(
            f"{shown_path(found.root)} is not what was written, and was not uploaded to {shown(repo)}: "
            f"{shown(differences[0].tensor)} {shown(differences[0].note or differences[0].kind)}",
            "vlconv verify lists what differs; convert it again.",
        )
