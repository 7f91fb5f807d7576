"""What proxies and the counting service say to one another: a limit in one descriptor entry.

    retia.limit = default/shop/per-user|100/60|shadow

is the limit's name, how many in how many seconds, and perhaps marks: nothing is refused (``shadow``), clients
are told nothing (``quiet``). A request's other entries are what it is counted by. So the service needs no
configuration, and a changed limit holds at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SERVICE = "ratelimit"
"""The counting service, in the root namespace."""
PORT = 8081
DOMAIN = "retia"
KEY = "retia.limit"
WHEN = "retia.when"
"""An entry that only says that the limit's condition holds."""

_TEXT = re.compile(r"([^|]{1,1024})\|([0-9]{1,10})/([0-9]{1,8})(\|shadow)?(\|quiet)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Counted:
    """A limit as the counting service knows it."""

    name: str
    amount: int
    window_s: int
    shadow: bool = False
    quiet: bool = False

    def __str__(self) -> str:
        marks = ("|shadow" if self.shadow else "") + ("|quiet" if self.quiet else "")
        return f"{self.name}|{self.amount}/{self.window_s}{marks}"

    @classmethod
    def parse(cls, text: str) -> Counted:
        """The inverse of ``str``. Raises ``ValueError``."""
        match = _TEXT.fullmatch(text)
        if match is None or not int(match[2]) or not int(match[3]):
            raise ValueError(f"{text[:100]!r} is no limit")
        return cls(match[1], int(match[2]), int(match[3]), bool(match[4]), bool(match[5]))
