"""What a gateway proxy gets beyond clusters: listeners, whole route configurations, secrets by reference."""

from retia.translate.edge.listeners import build_edge_listener, edge_listener_names
from retia.translate.edge.ports import passes_names
from retia.translate.edge.routes import build_edge_routes

__all__ = ["build_edge_listener", "build_edge_routes", "edge_listener_names", "passes_names"]
