"""The frozen types that every other package speaks.

Five words: a *fact* is one immutable thing that a source says (a service, a workload, one configuration
object); a *snapshot* is all facts at one revision; a *view* is a snapshot as one proxy sees it, and records
what is read from it; a *resource* is one named xDS resource with its wire bytes; a *finding* is something
that a person should know about the configuration.

Nothing here does I/O, and nothing here imports another package of the project.
"""
