"""Checks over all objects together, and the catalogue of findings.

A document that is right in itself can still name a host that does not exist, or hold a rule that no request
can reach. These checks need the whole: all objects, and what is known of services and workloads. They change
nothing and need no server, so ``retia apply --dry-run`` and the control plane run the same code.
"""
