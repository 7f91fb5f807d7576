"""The status of Gateway API objects: conditions with the specification's types, reasons and meaning.

Pure: computed from a snapshot by the same functions that make the configuration, so that a status never says
what the proxies don't do. What needs a running mesh (who serves a Gateway, and whether it has taken its
configuration) is given as :class:`Serving`. Times of transitions are the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from retia.analysis.status import gateways, policies, routes
from retia.analysis.status.conditions import NOBODY, Condition, Serving
from retia.model.objects import ConfigObject
from retia.model.snapshot import View
from retia.policy.gateway_api.names import GATEWAY, LISTENER_SETS

__all__ = ["KINDS", "NOBODY", "Condition", "Serving", "status_of"]

Status = dict[str, Any]
Builder = Callable[[View, ConfigObject, int, Serving], Status]

KINDS: Mapping[str, Builder] = MappingProxyType(
    {
        "GatewayClass": gateways.of_class,
        GATEWAY: gateways.of_gateway,
        **dict.fromkeys(LISTENER_SETS, gateways.of_listener_set),
        "HTTPRoute": routes.of_route,
        "GRPCRoute": routes.of_route,
        "TLSRoute": routes.of_route,
        "TCPRoute": routes.of_route,
        "BackendTLSPolicy": policies.of_backend_tls,
    }
)
"""How the status of each kind is computed."""


def status_of(view: View, obj: ConfigObject, generation: int, serving: Serving = NOBODY) -> Status | None:
    """The object's ``status`` as plain data; ``None``: its kind has none.

    ``generation`` is what ``observedGeneration`` says: the revision of the object that was looked at.
    """
    builder = KINDS.get(obj.ref.kind)
    return builder(view, obj, generation, serving) if builder is not None else None
