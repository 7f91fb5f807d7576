"""The guided tour of the sample shop: ``retia demo``.

Five words: the *shop* is the sample in ``samples/shop``; a *stage* is a mesh of its own, in a temporary state
folder, with the shop running in it; the *visitor* is a client inside that mesh, steered over a pipe; a *step*
asserts one thing that it observed there; a *leftover* is what a stage should have taken away and did not.

Everything is done from outside, as a user would: commands of the command line, the HTTP API, Envoy's own
state read through it. A step passes on what it saw (answers, certificates, Envoy's counters), never on what
was configured. Where explicit capture cannot give what a step is about, the step says so and counts as
neither passed nor failed.
"""

from __future__ import annotations


def run(check: bool = False, capture: str = "auto") -> int:
    """Show the shop until Ctrl-C, or with ``check`` walk the tour; returns the exit status.

    ``capture`` is ``auto``, ``ebpf`` or ``explicit``. However it ends, what was started is stopped first; a
    second Ctrl-C during that is ignored.
    """
    if check:
        from retia.cli.tour.check import walk

        return walk(capture)
    from retia.cli.tour.show import show

    return show(capture)
