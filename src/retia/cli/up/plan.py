"""The difference between what runs and what a mesh file wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retia.cli.up.spec import PublishSpec, Slot, Spec


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, all sorted by slot. Slots that stay as they are do not appear."""

    start: tuple[Spec, ...] = ()
    replace: tuple[Spec, ...] = ()
    """Slots whose program runs with another spec now."""
    stop: tuple[Slot, ...] = ()
    publish: bool = False
    """The published ports differ."""

    @property
    def empty(self) -> bool:
        return not (self.start or self.replace or self.stop or self.publish)

    def __str__(self) -> str:
        parts = [
            f"{len(items)} to {word}"
            for word, items in (("start", self.start), ("replace", self.replace), ("stop", self.stop))
            if items
        ]
        if self.publish:
            parts.append("published ports change")
        return ", ".join(parts) or "nothing to change"


def make_plan(
    running: Mapping[Slot, Spec],
    wanted: Mapping[Slot, Spec],
    published: tuple[PublishSpec, ...] = (),
    publish: tuple[PublishSpec, ...] = (),
) -> Plan:
    """The plan that makes ``running`` into ``wanted``."""
    return Plan(
        start=tuple(wanted[slot] for slot in sorted(wanted) if slot not in running),
        replace=tuple(wanted[s] for s in sorted(wanted) if s in running and running[s] != wanted[s]),
        stop=tuple(slot for slot in sorted(running) if slot not in wanted),
        publish=sorted(published, key=str) != sorted(publish, key=str),
    )
