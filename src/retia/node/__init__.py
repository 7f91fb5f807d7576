"""One host's kernel: capture of its workloads, addresses, and what listens where.

Five words: an *instance* is one captured workload with a cgroup and two loopback addresses; a *program* is
a BPF program of ``bpf/programs``; a *map* is what the programs read and this package writes; a *link*
attaches a program to a cgroup; a *pin* keeps maps and links alive in bpffs while no agent runs.

:mod:`retia.node.capture` is what the agent uses; :mod:`retia.node.features` says whether the kernel can do
it.
"""
