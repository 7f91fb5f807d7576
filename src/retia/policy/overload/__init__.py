"""OverloadPolicy: what a service does when more comes than it can do."""

from retia.policy.overload.forms import Adaptive, Admission, Critical, Overload, Shedding
from retia.policy.overload.resolve import INDEX, gateway_overload, port_overload

__all__ = [
    "INDEX",
    "Adaptive",
    "Admission",
    "Critical",
    "Overload",
    "Shedding",
    "gateway_overload",
    "port_overload",
]
