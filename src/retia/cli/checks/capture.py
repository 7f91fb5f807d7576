"""Category *capture*: the kernel features that eBPF capture needs, one by one.

Without them explicit capture is used, so a missing one is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

from retia.api.local import Probe
from retia.cli.checks import Result, Scene, Verdict

CATEGORY = "capture"


def check(scene: Scene) -> Iterator[Result]:
    agent = scene.agent
    probes = list(agent.probes) if agent is not None and agent.probes else _own_probes()
    for probe in probes:
        verdict = Verdict.OK if probe.ok else Verdict.WARNING
        remedy = "" if probe.ok else "without it explicit capture is used; docs/reference/capture.md"
        yield Result(CATEGORY, probe.name, verdict, probe.reason, remedy)
    if agent is not None:
        name = "eBPF" if agent.capture == "ebpf" else "explicit"
        verdict = Verdict.OK if agent.capture == "ebpf" else Verdict.WARNING
        yield Result(CATEGORY, "capture in force", verdict, f"{name}: {agent.reason}")


def _own_probes() -> list[Probe]:
    """Asked by this process, with its own privileges."""
    from retia.node.features import probe

    return [Probe(name=f.name, ok=f.ok, reason=f.reason) for f in probe()]
