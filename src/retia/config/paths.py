"""Field paths as people read them: ``spec.http[0].match[1].headers["x-user"]``."""

from __future__ import annotations

import json
import re

from retia.config.schema.base import Path

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def format_path(path: Path) -> str:
    """The path as text; keys that are no plain words stand quoted in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text
