"""A report as one HTML page that needs nothing beside it: `vlconv verify … --report FILE.html`.

In Python `vlconv.page.as_html(verify("base", "tuned"), a="base", b="tuned")` is the same as text.
"""

from __future__ import annotations

from vlconv.page.file import Page
from vlconv.page.html import as_html

__all__ = ["Page", "as_html"]
