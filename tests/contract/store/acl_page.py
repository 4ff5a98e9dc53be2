"""The users of Redis with the fewest rights, as docs/security.md states them."""

from __future__ import annotations

import re
from pathlib import Path

PASSWORD = "s3cret-w0rd"
PAGE = Path(__file__).parents[3] / "docs" / "security.md"


def acl_line(user: str = "cellkeeper") -> list[str]:
    """Returns the rules of the user as the page states them."""
    found = re.search(rf"^    user {user} (.*)$", PAGE.read_text(), re.MULTILINE)
    if found is None:
        raise AssertionError(f"docs/security.md has no ACL line for {user}")
    return found.group(1).replace("PASSWORD", PASSWORD).split()
