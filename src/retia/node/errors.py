"""What may go wrong in capture. Every error of this package is a :class:`CaptureError`."""

from __future__ import annotations

import os


class CaptureError(Exception):
    """Capture could not do what it was asked for; the text says what, where and what to do."""


class CaptureUnavailable(CaptureError):  # noqa: N818
    """This host cannot capture by eBPF: a feature of the kernel or a right is missing.

    ``feature`` is its name as :func:`retia.node.features.probe` lists it.
    """

    def __init__(self, feature: str, reason: str) -> None:
        super().__init__(f"eBPF capture is not available here: {feature}: {reason}")
        self.feature = feature
        self.reason = reason


class InstanceBusy(CaptureError):  # noqa: N818
    """Processes still live in a cgroup that was to be removed; ``pids`` names them."""

    def __init__(self, cgroup: str, pids: tuple[int, ...]) -> None:
        shown = ", ".join(map(str, pids[:10]))
        super().__init__(
            f"{cgroup} still has {len(pids)} processes ({shown}): stop them, or remove it with kill=True"
        )
        self.pids = pids


class BadObject(CaptureError):  # noqa: N818
    """A file is no BPF object that this loader understands."""


class BpfError(CaptureError):
    """The kernel refused a bpf(2) command. ``errno`` is its reason, ``log`` the verifier's words, if any."""

    def __init__(self, what: str, errno: int, log: str = "") -> None:
        tail = "\n".join(log.strip().splitlines()[-12:])
        super().__init__(f"{what}: {os.strerror(errno)}" + (f"\n{tail}" if tail else ""))
        self.errno = errno
        self.log = log
