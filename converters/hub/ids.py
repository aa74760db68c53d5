"""What a repository of the Hub is called: `org/name`, or `org/name@revision`."""

from __future__ import annotations

import re
from typing import NamedTuple

_ID = re.compile(r"([\w.-]{1,96}(?:/[\w.-]{1,96})?)(?:@([\w.+-][\w./+-]{0,199}))?", re.ASCII)


class HubId(NamedTuple):
    """A repository, and which of its revisions.

    Attributes:
        repo: "org/name"; a few old ones have no org.
        revision: a branch, tag or commit; None: the main branch.
    """

    repo: str
    revision: str | None = None

    @property
    def spelled(self) -> str:
        """As a user writes it."""
        return self.repo + (f"@{self.revision}" if self.revision else "")


def hub_id(text: str) -> HubId | None:
    """The repository that a text names; None where it can be none."""
    found = _ID.fullmatch(text)
    return HubId(found[1], found[2]) if found else None
