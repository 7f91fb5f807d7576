"""Servers and a client of many protocols that know nothing of any mesh."""
