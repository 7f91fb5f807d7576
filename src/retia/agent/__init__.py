"""The host's agent: its workloads' traffic, names, keys and proxies.

Five words: the *keeper* is the process that parents the Envoys and holds the sockets; the *worker* is the
agent proper, which the keeper starts again when it ends; a *workload* is launched, watched and ended here; a
*proxy* is its Envoy, served over a socket of its own; the *world* is what a proxy may be told: what the
controller sent, kept on disk, and the secrets that are made here.

The worker may be killed at any time: Envoys, captured programs and sockets stay, and the next one adopts
them. While the controller is away it answers from disk.
"""
