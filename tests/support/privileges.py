"""Whether this process may do what privileged tests need: root, CAP_BPF, and a cgroup v2 mount."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

CAP_BPF = 39
"""linux/capability.h."""


def missing_privilege() -> str:
    """Why privileged tests cannot run here; empty: they can."""
    if os.geteuid() != 0:
        return "needs root"
    status = Path("/proc/self/status").read_text()
    effective = next(
        (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff")), 0
    )
    if not effective >> CAP_BPF & 1:
        return "needs CAP_BPF"
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if not any(" - cgroup2 " in line for line in mounts):
        return "needs a cgroup v2 mount"
    return ""


def must_run() -> bool:
    """Whether a privileged test that cannot run is a failure (CI) rather than skipped."""
    return os.environ.get("RETIA_REQUIRE_PRIVILEGED") == "1"


def cannot_run(why: str) -> NoReturn:
    """End a privileged test that cannot run: a failure where it must run, otherwise skipped."""
    if must_run():
        pytest.fail(f"RETIA_REQUIRE_PRIVILEGED=1, but this test cannot run: {why}", pytrace=False)
    pytest.skip(why)


def need_tool(name: str, package: str) -> str:
    """The path of a program that a privileged test needs as a real peer."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return found or cannot_run(f"{name} is not installed (Debian: apt-get install {package})")
