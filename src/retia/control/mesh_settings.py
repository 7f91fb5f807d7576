"""The mesh-wide settings in the store."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

from retia.model.mesh import MeshSettings
from retia.sources.space import Space

SPACE = "mesh"
KEY = "settings"
CHANGEABLE = (
    "connect_timeout_s",
    "default_retries",
    "protocol_detection_timeout_s",
    "outbound_allow_any",
)


def load(space: Space, trust_domain: str) -> MeshSettings:
    """The settings as last changed; the defaults where none were."""
    settings = MeshSettings(trust_domain=trust_domain)
    found = space.read(KEY)
    if found is None:
        return settings
    try:
        value = json.loads(found[0])
    except ValueError:
        return settings
    known = {f.name for f in fields(MeshSettings)} & set(CHANGEABLE)
    return replace(settings, **{k: v for k, v in value.items() if k in known})


def changed(settings: MeshSettings, change: dict[str, Any]) -> MeshSettings:
    return replace(settings, **{k: v for k, v in change.items() if k in CHANGEABLE and v is not None})


def save(space: Space, settings: MeshSettings) -> None:
    """Write them down. Raises ``StoreError``."""
    value = {k: v for k, v in asdict(settings).items() if k in CHANGEABLE}
    space.set(KEY, json.dumps(value, sort_keys=True).encode())
