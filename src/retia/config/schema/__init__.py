"""The models of the kinds, one file each: every field of Istio's current API, validated as Istio does.

Names are Python's (``per_try_timeout``); users write Istio's (``perTryTimeout``). Everything is frozen and
hashable: lists are tuples, maps are sorted tuples of pairs, durations are seconds.
"""

from retia.config.schema.base import FrozenMap, Model, Problem, ProblemsError
from retia.config.schema.destination_rule import DestinationRule
from retia.config.schema.peer_authentication import PeerAuthentication
from retia.config.schema.service import Service
from retia.config.schema.service_entry import ServiceEntry
from retia.config.schema.virtual_service import VirtualService
from retia.config.schema.workload_entry import WorkloadEntry

__all__ = [
    "DestinationRule",
    "FrozenMap",
    "Model",
    "PeerAuthentication",
    "Problem",
    "ProblemsError",
    "Service",
    "ServiceEntry",
    "VirtualService",
    "WorkloadEntry",
]
