"""The command line: one module a command.

Five words: a *session* is one state folder with its sockets; a *format* is how a result is printed (table,
YAML, JSON); the *supervisor* is ``retia up``, which runs a *mesh file* (package ``up``); the *tour* is what
``retia demo --check`` walks through (package ``tour``).

Data goes to stdout, messages to stderr. Controller and agent are started as processes and never imported.
"""
