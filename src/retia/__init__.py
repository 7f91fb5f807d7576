"""Retia: a service mesh for plain hosts and Kubernetes."""

__version__ = "0.1.0"
