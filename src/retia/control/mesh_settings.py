"""The mesh-wide settings in the store, and as the API names them: flat, one value each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from retia.model.mesh import AccessLog, MeshSettings
from retia.sources.space import Space

SPACE = "mesh"
KEY = "settings"
_SCALARS = (
    "connect_timeout_s",
    "default_retries",
    "protocol_detection_timeout_s",
    "outbound_allow_any",
    "retry_budget_percent",
    "retry_budget_minimum",
    "upgrade_to_http2",
    "dns_refresh_s",
)
_ACCESS_LOG = {"access_log_file": "path", "access_log_format": "format", "access_log_json": "json"}


def load(space: Space, trust_domain: str) -> MeshSettings:
    """The settings as last changed; the defaults where none were."""
    settings = MeshSettings(trust_domain=trust_domain)
    found = space.read(KEY)
    if found is None:
        return settings
    try:
        return changed(settings, json.loads(found[0]))
    except (ValueError, TypeError, AttributeError):
        return settings


def changed(settings: MeshSettings, change: dict[str, Any]) -> MeshSettings:
    """The settings with some of them changed; names that aren't changeable are passed over."""
    given = {name: value for name, value in change.items() if value is not None}
    log = {part: given[name] for name, part in _ACCESS_LOG.items() if name in given}
    scalars = {name: given[name] for name in _SCALARS if name in given}
    return replace(settings, access_log=replace(settings.access_log, **log), **scalars)


def flat(settings: MeshSettings) -> dict[str, Any]:
    """The changeable settings by name."""
    log: AccessLog = settings.access_log
    return {
        **{name: getattr(settings, name) for name in _SCALARS},
        **{name: getattr(log, part) for name, part in _ACCESS_LOG.items()},
    }


def save(space: Space, settings: MeshSettings) -> None:
    """Write them down. Raises ``StoreError``."""
    space.set(KEY, json.dumps(flat(settings), sort_keys=True).encode())
