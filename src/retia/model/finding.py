"""Problems in users' configuration, as values.

Codes (``RT`` and four digits) are listed once, in ``retia.analysis.catalogue``; a retired code is not used
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retia.model.objects import NOWHERE, ObjectRef, Origin


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a person should know.

    ``message`` is one sentence: the value, the rule, the effect. ``field`` is a path such as
    ``spec.http[0].route[1].weight``; empty: the whole object.
    """

    code: str
    level: Level
    message: str
    ref: ObjectRef | None = None
    field: str = ""
    origin: Origin = NOWHERE
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.origin.path}:{self.origin.line}: " if self.origin.path else ""
        what = f"{self.ref}: " if self.ref else ""
        at = f"{self.field}: " if self.field else ""
        then = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{what}{at}{self.message}{then} [{self.code}]"
