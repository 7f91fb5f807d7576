"""The models of the kinds, one file each: every field of Istio's current API, validated as Istio does.

Names are Python's (``per_try_timeout``); users write Istio's (``perTryTimeout``). Everything is frozen and
hashable: lists are tuples, maps are sorted tuples of pairs, durations are seconds.
"""

from retia.config.schema.base import FrozenMap, Model, Problem, ProblemsError
from retia.config.schema.config_map import ConfigMap
from retia.config.schema.destination_rule import DestinationRule
from retia.config.schema.envoy_filter import EnvoyFilter
from retia.config.schema.gateway import Gateway
from retia.config.schema.peer_authentication import PeerAuthentication
from retia.config.schema.secret import Secret
from retia.config.schema.service import Service
from retia.config.schema.service_entry import ServiceEntry
from retia.config.schema.virtual_service import VirtualService
from retia.config.schema.workload_entry import WorkloadEntry

__all__ = [
    "ConfigMap",
    "DestinationRule",
    "EnvoyFilter",
    "FrozenMap",
    "Gateway",
    "Model",
    "PeerAuthentication",
    "Problem",
    "ProblemsError",
    "Secret",
    "Service",
    "ServiceEntry",
    "VirtualService",
    "WorkloadEntry",
]
