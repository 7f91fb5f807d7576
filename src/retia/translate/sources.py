"""Where resources come from, as provenance."""

from __future__ import annotations

from retia.model.ids import Namespace
from retia.model.mesh import Service
from retia.model.objects import ObjectRef
from retia.model.resource import Provenance


def service_provenance(service: Service) -> tuple[Provenance, ...]:
    """The object that declared a service; nothing for one that ``retia run`` made."""
    kind, _, rest = service.origin.partition("/")
    namespace, _, name = rest.partition("/")
    if not name:
        return ()
    return (Provenance(ObjectRef(kind, Namespace(namespace), name)),)
