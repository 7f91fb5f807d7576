"""Who sees an object: ``exportTo``."""

from __future__ import annotations

from retia.model.ids import own_namespace


def visible(export_to: tuple[str, ...], namespace: str, client_namespace: str) -> bool:
    """Whether an object of ``namespace`` is seen by proxies of ``client_namespace``.

    An empty list exports to everybody, as in Istio; ``.`` is the object's own namespace.
    """
    if not export_to:
        return True
    client = own_namespace(client_namespace)
    return any(
        target == "*" or own_namespace(target) == client or (target == "." and namespace == client)
        for target in export_to
    )
