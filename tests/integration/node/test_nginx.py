"""Stock nginx with ``listen 80; listen [::]:80`` (IPv6-only by nginx's default), several on one host."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.node.conftest import Stage, Workload
from tests.support.privileges import need_tool

pytestmark = pytest.mark.privileged

CONFIGURATION = """
daemon off; master_process on; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 80{options}; listen [::]:80{options}; return 200 "{text}"; }}
}}
"""

Wait = Callable[[str, int], None]


@pytest.fixture
def nginx() -> str:
    return need_tool("nginx", "nginx-light")


def start(workload: Workload, nginx: str, folder: Path, text: str, options: str = "") -> None:
    folder.mkdir()
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, text=text, options=options))
    workload.inside.start(nginx, "-p", str(folder), "-c", str(configuration))


@pytest.mark.parametrize("options", ["", " reuseport"])
def test_two_instances_on_port_80(
    stage: Stage, nginx: str, tmp_path: Path, wait_listening: Wait, options: str
) -> None:
    pair = stage.workload(1), stage.workload(2)
    for number, workload in enumerate(pair):
        start(workload, nginx, tmp_path / str(number), f"nginx-{number}", options)
    for number, workload in enumerate(pair):
        wait_listening(workload.app, 80)
        assert workload.proxy.ask(workload.app, 80).endswith(f"nginx-{number}")
        assert workload.inside.ask("127.0.0.1", 80).endswith(f"nginx-{number}")
        assert workload.inside.ask("::1", 80).endswith(f"nginx-{number}")
    assert stage.stranger.ask(pair[0].app, 80, 0.4) == "timeout"


def test_reload(stage: Stage, nginx: str, tmp_path: Path, wait_listening: Wait) -> None:
    workload = stage.workload(1)
    folder = tmp_path / "one"
    start(workload, nginx, folder, "before")
    wait_listening(workload.app, 80)
    deadline = time.monotonic() + 10
    while not (folder / "nginx.pid").exists() or not (folder / "nginx.pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    configuration = folder / "nginx.conf"
    configuration.write_text(configuration.read_text().replace("before", "after"))
    os.kill(int((folder / "nginx.pid").read_text()), signal.SIGHUP)
    while not workload.proxy.ask(workload.app, 80).endswith("after"):
        assert time.monotonic() < deadline
    assert workload.inside.ask("::1", 80).endswith("after")
    assert "emerg" not in (folder / "error.log").read_text()
