"""``retia up``: a mesh file, and the supervisor that keeps it running.

Five words: a *mesh file* is what a person wrote; a *slot* is one place in it for a running program (service,
version, number); a *spec* is everything that a slot's program is started with; an *instance* is a program
that runs in a slot, under the agent's name for it; a *plan* is the difference between the slots that run and
those that a mesh file wants.
"""
