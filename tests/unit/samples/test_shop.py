"""The shop's programs as plain processes, with no mesh: what the mesh is given must work by itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retia.cli.tour import shop
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import free_port
from retia.config.parse import SourceText, parse

SERVICES = shop.folder() / "services"
Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts one program of the shop and returns its port, once it listens."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(*command: str, **environment: str) -> int:
        port = free_port()
        process = subprocess.Popen(
            command,
            cwd=SERVICES,
            env={**os.environ, "PORT": str(port), "HOST": "127.0.0.1", **environment},
            stdout=subprocess.DEVNULL,
        )
        processes.append(process)
        assert wait_until(lambda: _listens(port) or process.poll() is not None, 20)
        assert process.poll() is None, f"{command} ended at once"
        return port

    yield run
    for process in processes:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str, data: bytes | None = None) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=data, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def language(runtime: str) -> Any:
    return pytest.mark.skipif(shutil.which(runtime) is None, reason=f"{runtime} is not installed")


@pytest.mark.parametrize("program", ["products.py", pytest.param("products.js", marks=language("node"))])
def test_products_answer_alike_in_both_languages(start: Start, program: str) -> None:
    inventory = start(sys.executable, "inventory.py")
    runtime = "node" if program.endswith(".js") else sys.executable
    port = start(runtime, program, INVENTORY_URL=f"http://127.0.0.1:{inventory}")
    status, product = get(port, "/products/2")
    assert (status, product["title"], product["stock"]) == (200, "Gill net", 7)
    assert len(get(port, "/products")[1]["products"]) == 3
    assert get(port, "/nothing")[0] == 404
    assert get(port, "/health")[1] == {"service": "products", "healthy": True}


@pytest.mark.parametrize("program", ["ratings.py", pytest.param("Ratings.java", marks=language("java"))])
def test_ratings_answer_alike_in_both_languages(start: Start, program: str) -> None:
    port = start("java" if program.endswith(".java") else sys.executable, program, VERSION="v7")
    status, ratings = get(port, "/ratings/1")
    assert (status, ratings["version"], ratings["stars"]) == (200, "v7", [5, 4])
    assert get(port, "/nothing")[0] == 404


def test_a_product_without_its_inventory_has_no_stock(start: Start) -> None:
    port = start(sys.executable, "products.py", INVENTORY_URL="tcp://127.0.0.1:1")
    assert get(port, "/products/1")[1]["stock"] is None


def test_a_flaky_instance_fails_every_second_charge_until_told_otherwise(start: Start) -> None:
    port = start(sys.executable, "payments.py", FAIL_EVERY="2")
    assert [get(port, "/charge")[0] for _ in range(4)] == [200, 503, 200, 503]
    assert get(port, "/trouble?every=0", b"")[1]["every"] == 0
    assert [get(port, "/charge")[0] for _ in range(3)] == [200, 200, 200]


def test_the_inventory_speaks_first_and_never_sells_what_is_not_there(start: Start) -> None:
    port = start(sys.executable, "inventory.py")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        lines = connection.makefile("rw", newline="\n")
        assert lines.readline() == "inventory v1 ready\n"
        for asked, answer in [
            ("STOCK 3", "OK 2"),
            ("TAKE 3 2", "OK 0"),
            ("TAKE 3 1", "NO 0"),
            ("X", "WHAT?"),
        ]:
            lines.write(f"{asked}\n")
            lines.flush()
            assert lines.readline() == f"{answer}\n"


def test_the_starter_replaces_a_missing_runtime_by_python(tmp_path: Any) -> None:
    code = "import start; print(start.command('ratings')[-1])"
    for path, ending in ((str(tmp_path), "ratings.py"), (os.environ["PATH"], ("Ratings.java", "ratings.py"))):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=SERVICES,
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip().endswith(ending)


@pytest.mark.parametrize("file", sorted((shop.folder() / "config").rglob("*.yaml")), ids=lambda f: f.stem)
def test_a_configuration_file_is_named_by_the_readme_and_has_no_findings(file: Path) -> None:
    assert file.name in (shop.folder() / "README.md").read_text()
    parsed = parse([SourceText(file.name, file.read_text())])
    assert [str(f) for f in parsed.findings] == []
