"""Who sees an object: ``exportTo``."""

from __future__ import annotations


def visible(export_to: tuple[str, ...], namespace: str, client_namespace: str) -> bool:
    """Whether an object of ``namespace`` is seen by proxies of ``client_namespace``.

    An empty list exports to everybody, as in Istio; ``.`` is the object's own namespace.
    """
    if not export_to:
        return True
    return any(
        target == "*" or target == client_namespace or (target == "." and namespace == client_namespace)
        for target in export_to
    )
