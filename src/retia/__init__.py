"""Retia: a service mesh for plain hosts."""

__version__ = "0.1.0"
