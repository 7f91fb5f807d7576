"""What a person gets wrong: one clear line, the right exit status, and nothing half done.

All of it against one running mesh, under explicit capture, so that an ordinary user can run this file too.
Messages stand whole, because they are what a person reads: what, where, the value, the rule, the next step.
"""

# ruff: noqa: E501 - so that they can be searched for

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from retia.api.schema import TokenRequest
from retia.cli.tour.processes import belonging_to, end, retia, wait_until
from retia.cli.tour.stage import Stage
from retia.identity.spiffe import parse_trust_domain
from retia.identity.token import make_token

pytestmark = pytest.mark.timeout(120)

PROGRAM = "python3 -m http.server --bind 127.0.0.1 ${port:8080}"
MESH = f"""
services:
  web:
    command: {PROGRAM}
    ports: [8080/http]
    capture: explicit
    working_dir: /
"""
API = "apiVersion: networking.istio.io/v1"
ALL_KINDS = ("VirtualService", "DestinationRule", "ServiceEntry", "PeerAuthentication")
WRONG_SETTINGS = 78
"""``EX_CONFIG`` of sysexits.h: starting again doesn't help."""


@dataclass(frozen=True)
class Ran:
    """How a command ended; paths of the test's folder are left out of what it said."""

    code: int
    out: str
    err: str


class Shell:
    """Runs ``retia`` against one mesh, in a folder of its own."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.folder = folder

    def __call__(
        self,
        *arguments: str,
        home: Path | None = None,
        given: str | None = None,
        before: Callable[[], None] | None = None,
    ) -> Ran:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RETIA_")}
        done = subprocess.run(
            retia(*arguments),
            cwd=self.folder,
            env={**environment, "RETIA_HOME": str(home or self.home)},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            preexec_fn=before,
        )
        shown = [text.replace(f"{self.folder}/", "") for text in (done.stdout, done.stderr)]
        return Ran(done.returncode, *shown)

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    file = tmp_path_factory.mktemp("mesh") / "retia.yaml"
    file.write_text(MESH)
    with Stage(file) as started:
        yield started
    assert started.left == []


@pytest.fixture
def shell(stage: Stage, tmp_path: Path) -> Iterator[Shell]:
    """For one test, after which the mesh is as it was."""
    yield Shell(stage.home, tmp_path)
    for kind in ALL_KINDS:
        for found in stage.client.list_objects(kind):
            stage.client.delete_object(kind, found.namespace, found.name)


@pytest.fixture
def unchanged(stage: Stage) -> Iterator[None]:
    """Nothing of what the test did may be left: no object, workload or proxy."""

    def holds() -> tuple[list[str], list[str], list[str]]:
        objects = [f"{k}/{o.namespace}/{o.name}" for k in ALL_KINDS for o in stage.client.list_objects(k)]
        workloads = [w.id for w in stage.client.list_workloads()]
        return objects, workloads, [p.id for p in stage.client.list_proxies()]

    before = holds()
    yield
    assert wait_until(lambda: holds() == before, 5), f"{holds()} instead of {before}"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A state folder in which nothing runs, nor may run afterwards. Its name is short, as sockets need."""
    home = Path(tempfile.mkdtemp(prefix="retia-bad-"))
    try:
        yield home
        assert wait_until(lambda: belonging_to(home) == [], 10), belonging_to(home)
    finally:
        for found in belonging_to(home):
            with contextlib.suppress(OSError):
                os.kill(int(found.split(":", 1)[0]), signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def virtual_service(name: str, host: str = "web", to: str = "web", **metadata: str) -> str:
    extra = "".join(f", {key}: {value}" for key, value in metadata.items())
    return (
        f"{API}\nkind: VirtualService\nmetadata: {{name: {name}{extra}}}\n"
        f"spec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}\n"
    )


# -- documents


DOCUMENTS = [
    ("no YAML", "a: [1", "error: bad.yaml:2: this is not YAML: did not find expected ',' or ']' (column 1) [RT0001]"),
    ("unknown kind", f"{API}\nkind: VirtualServise\nmetadata: {{name: a}}\n",
     "error: bad.yaml:2: VirtualServise/default/a: kind: is VirtualServise, which networking.istio.io/v1 does not have; did you mean VirtualService? [RT0005]"),
    ("unknown field", f"{API}\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [web]\n  htp: []\n",
     "error: bad.yaml:6: VirtualService/default/a: spec.htp: is no field of VirtualService; did you mean http? [RT0101]"),
    ("a name that is no DNS label", virtual_service("Bad_Name"),
     "error: bad.yaml:3: VirtualService/default/Bad_Name: metadata.name: is Bad_Name; it must be a DNS name in lower case: letters, digits and -, the ends not - [RT0008]"),
    ("not supported yet", f"{API}\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {{host: web, trafficPolicy: {{outlierDetection: {{consecutiveErrors: 5}}}}}}\n",
     "error: bad.yaml:4: DestinationRule/default/a: spec.trafficPolicy.outlierDetection.consecutiveErrors: is not supported by this version; use consecutiveGatewayErrors or consecutive5xxErrors [RT0202]"),
]  # fmt: skip


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("text", "said"), [d[1:] for d in DOCUMENTS], ids=[d[0] for d in DOCUMENTS])
def test_a_document_that_is_refused(shell: Shell, text: str, said: str) -> None:
    ran = shell("apply", "-f", shell.file("bad.yaml", text))

    assert ran == Ran(1, "", f"{said}\nnothing was applied: 1 error\n")


@pytest.mark.usefixtures("unchanged")
def test_one_wrong_document_costs_all_and_all_errors_are_shown(shell: Shell) -> None:
    (shell.folder / "conf").mkdir()
    shell.file("conf/1-good.yaml", virtual_service("good"))
    shell.file(
        "conf/2-bad.yaml",
        f"{virtual_service('Bad')}---\n{API}\nkind: DestinationRule\nmetadata: {{name: b}}\nspec: {{}}\n",
    )

    ran = shell("apply", "-f", "conf")

    assert ran.code == 1
    lines = ran.err.splitlines()
    assert [line.split(" ")[1] for line in lines[:-1]] == ["conf/2-bad.yaml:3:", "conf/2-bad.yaml:9:"]
    assert lines[-1] == "nothing was applied: 2 errors"


def test_a_reference_to_nothing_is_applied_with_a_warning(shell: Shell) -> None:
    ran = shell("apply", "-f", shell.file("a.yaml", virtual_service("a", to="nowhere")))

    assert ran == Ran(
        0,
        "VirtualService/default/a created\n",
        "warning: a.yaml:4: VirtualService/default/a: spec.http[0].route[0].destination.host: is nowhere, but no service is named "
        "nowhere.default.svc.cluster.local; requests sent to it get 503 [RT0301]\n",
    )


def test_two_objects_for_one_host_are_a_finding(shell: Shell) -> None:
    shell("apply", "-f", shell.file("a.yaml", virtual_service("a")))

    ran = shell("apply", "-f", shell.file("b.yaml", virtual_service("b")))

    assert ran == Ran(
        0,
        "VirtualService/default/b created\n",
        "warning: b.yaml:4: VirtualService/default/b: spec.http[0]: is never reached for web.default.svc.cluster.local: "
        "spec.http[0] of VirtualService/default/a is older and takes its requests; make the matches differ, or write the "
        "rules for one host into one VirtualService [RT0304]\n",
    )


@pytest.mark.usefixtures("unchanged")
def test_a_dry_run_changes_nothing(shell: Shell) -> None:
    ran = shell("apply", "--dry-run", "-f", "-", given=virtual_service("a"))

    assert (ran.code, ran.err) == (0, "")
    assert "VirtualService/default/a created" in ran.out


@pytest.mark.usefixtures("unchanged")
def test_kubernetes_kinds_are_skipped_with_a_notice(shell: Shell) -> None:
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n" + "---\n".join(
        f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: d}}\n" for kind in ("Pod", "ServiceAccount")
    )

    ran = shell("apply", "-f", "-", given=text)

    assert ran.code == 0
    assert ran.out.splitlines() == [f"{k}/default/d skipped" for k in ("Deployment", "Pod", "ServiceAccount")]
    assert ran.err.splitlines()[0] == (
        "info: -:1: Deployment/default/d: Deployment of apps/v1 is no mesh configuration; it is skipped [RT0203]"
    )


CLUSTER_LIST = """
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata:
    name: a
    namespace: default
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: "{}"
    creationTimestamp: "2024-05-01T10:00:00Z"
    generation: 3
    resourceVersion: "1234"
    uid: 0b3d2a9e-8f44-4a5c-9d34-0f9a6f6f0c11
    managedFields:
    - {manager: kubectl, operation: Update}
  spec:
    hosts: [web]
    http:
    - timeout: 3s
      route: [{destination: {host: web}}]
  status:
    observedGeneration: 3
    conditions: [{type: Reconciled, status: "True"}]
metadata:
  resourceVersion: ""
"""


def test_what_kubectl_prints_is_taken_and_comes_back_the_same(shell: Shell) -> None:
    first = shell("apply", "-f", "-", given=CLUSTER_LIST)
    printed = shell("get", "VirtualService", "-o", "yaml")
    again = shell("apply", "-f", "-", given=printed.out)

    assert first == Ran(0, "VirtualService/default/a created\n", "")
    (document,) = yaml.safe_load_all(printed.out)
    assert document["spec"] == yaml.safe_load(CLUSTER_LIST)["items"][0]["spec"]
    assert again == Ran(0, "VirtualService/default/a unchanged\n", "")


@pytest.mark.usefixtures("unchanged")
def test_a_file_that_is_not_there(shell: Shell) -> None:
    assert shell("apply", "-f", "gone.yaml") == Ran(
        1, "", "retia: cannot read gone.yaml: No such file or directory\n"
    )


def test_apply_with_no_controller(shell: Shell, elsewhere: Path) -> None:
    ran = shell("apply", "-f", shell.file("a.yaml", virtual_service("a")), home=elsewhere)

    assert ran == Ran(
        1,
        "",
        f"retia: no controller is running for this RETIA_HOME: there is no socket {elsewhere}/run/api.sock; "
        "start a mesh with 'retia up' or 'retia controller'\n",
    )
    assert list(elsewhere.iterdir()) == []


# -- mesh files, changed under a running mesh


MESH_FILES = [
    ("no YAML", "services: [\n", "retia: retia.yaml:2: this is not YAML: did not find expected node content (column 1)\n"),
    ("an unknown field", "services:\n  web:\n    comand: x\n    command: sleep 1\n",
     "retia: retia.yaml:3: services.web.comand: unknown field; did you mean 'command'?\n"),
    ("a name that is no DNS label", MESH + "  Bad_Name:\n    command: sleep 9\n",
     "retia: retia.yaml:8: services.Bad_Name: 'Bad_Name' is no DNS label; use 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end\n"),
    ("a command that does not exist", MESH + "  gone:\n    command: nosuchcommand\n",
     "retia: retia.yaml:9: services.gone.command: there is no program 'nosuchcommand' in PATH; check the command\n"),
]  # fmt: skip


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("text", "said"), [f[1:] for f in MESH_FILES], ids=[f[0] for f in MESH_FILES])
def test_a_mesh_file_that_is_refused(shell: Shell, text: str, said: str) -> None:
    ran = shell("up", shell.file("retia.yaml", text), "--detach")

    assert ran == Ran(1, "", said)


@pytest.mark.usefixtures("unchanged")
def test_a_service_that_exits_at_once(shell: Shell) -> None:
    quits = "  quits:\n    command: python3 -c 'import sys; sys.exit(\"no disk\")'\n    ports: [1/http]\n    capture: explicit\n"

    ran = shell("up", shell.file("retia.yaml", MESH + quits), "--detach")

    assert ran.code == 1
    last = ran.err.splitlines()[-1]
    shown = re.sub(r"quits-\d+", "quits-N", re.sub(r"after [\d.]+ s", "after N s", last))
    log = shell.home / "log" / "workloads" / "quits-N.log"
    assert shown == (
        f"retia: service quits: quits-N exited with status 1 after N s, saying: no disk; its log is {log}"
    )


@pytest.mark.usefixtures("unchanged")
def test_a_published_port_in_use(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = shell("up", shell.file("retia.yaml", f"{MESH}    publish: [{port}:8080]\n"), "--detach")

    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        f"retia: cannot publish web.default on 127.0.0.1:{port}: the port is in use or the address is not this "
        "machine's; choose another in 'publish'"
    )


def test_no_mesh_file(shell: Shell, elsewhere: Path) -> None:
    assert shell("up", "gone.yaml", home=elsewhere) == Ran(
        1, "", "retia: there is no mesh file gone.yaml; name one, or say 'retia up' for an empty mesh\n"
    )
    assert list(elsewhere.iterdir()) == []


def test_a_mesh_file_that_may_not_be_read(
    shell: Shell, elsewhere: Path, as_ordinary_user: Callable[[], None]
) -> None:
    file = shell.folder / shell.file("retia.yaml", MESH)
    file.chmod(0)
    _lend(elsewhere)
    _lend(shell.folder)

    ran = shell("up", str(file), home=elsewhere, before=as_ordinary_user)

    assert ran.code == 2
    assert "retia.yaml' is not readable" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert list(elsewhere.iterdir()) == []


# -- commands


COMMANDS = [
    ("a service's name that is no DNS label", ("run", "--service", "Bad_Name", "--port", "9000", "--", "true"), 2,
     "retia: --service is 'Bad_Name', which is no DNS label; use 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end\n"),
    ("a command that does not exist", ("run", "--service", "a", "--port", "9000", "--", "nosuchcommand"), 1,
     "retia: there is no program 'nosuchcommand' in PATH; check the command after '--'\n"),
    ("a port that is none", ("run", "--service", "a", "--port", "99999", "--", "true"), 2,
     "retia: --port 99999: ports are 1 to 65535\n"),
    ("a token without an address", ("agent", "--join", "x"), 2,
     "retia: --join needs --controller: the token does not say where the controller is\n"),
]  # fmt: skip


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("arguments", "code", "said"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS]
)
def test_a_command_that_is_refused(shell: Shell, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert shell(*arguments) == Ran(code, "", said)


@pytest.mark.usefixtures("unchanged")
def test_a_program_that_ends_at_once_gives_its_status_and_leaves_nothing(shell: Shell) -> None:
    ran = shell(
        "run", "--service", "quits", "--port", "9000", "--capture", "explicit", "--", "sh", "-c", "exit 7"
    )

    assert (ran.code, ran.out) == (7, "")


def test_a_state_folder_whose_name_is_too_long(shell: Shell) -> None:
    home = Path("/tmp") / ("x" * 100)

    assert shell("status", home=home) == Ran(
        1,
        "",
        f"retia: RETIA_HOME {home} has 105 bytes; the kernel's limit for socket paths leaves 84; choose a shorter path\n",
    )
    assert not home.exists()


def test_the_controllers_port_in_use(shell: Shell, elsewhere: Path) -> None:
    with _one_of_the_controllers_ports() as (index, port):
        ran = shell("controller", "--index", str(index), home=elsewhere)

    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        f"retia controller: the port for agents: 127.0.0.1:{port} is in use by another program; stop it, or choose another --index"
    )
    assert list((elsewhere / "run").iterdir()) == []


def test_ebpf_capture_without_the_rights(
    shell: Shell, elsewhere: Path, as_ordinary_user: Callable[[], None]
) -> None:
    _lend(elsewhere)
    _lend(shell.folder)
    file = shell.folder / shell.file("retia.yaml", MESH.replace("explicit", "ebpf"))

    ran = shell("up", str(file), "--detach", home=elsewhere, before=as_ordinary_user)

    assert ran.code == 1
    said = ran.err.splitlines()[-1]
    assert re.fullmatch(
        r"retia: service web: the agent refused web-\d: eBPF capture is not available here: .* lacks CAP_BPF; "
        r"run the agent as root; use --capture explicit, or auto to fall back to it",
        said,
    ), said


# -- tokens


def _address(stage: Stage) -> str:
    return f"127.0.0.1:{15012 + 100 * stage.client.status().mesh_index}"


def _join(shell: Shell, stage: Stage, home: Path, token: str) -> Ran:
    ran = shell(
        "agent",
        "--join",
        token,
        "--controller",
        _address(stage),
        "--host",
        "stranger",
        "--capture",
        "explicit",
        home=home,
    )
    assert [h.id for h in stage.client.list_hosts() if h.id == "stranger"] == []
    return Ran(ran.code, ran.out, ran.err.splitlines()[-1])


def test_a_token_that_is_none(shell: Shell, stage: Stage, elsewhere: Path) -> None:
    assert _join(shell, stage, elsewhere, "secret") == Ran(
        WRONG_SETTINGS, "", "retia agent: this is no join token: a join token begins with retia1."
    )


def test_a_token_that_has_expired(shell: Shell, stage: Stage, elsewhere: Path) -> None:
    made = shell("token", "create", "--ttl", "1s")

    assert made.code == 0
    wait_until(lambda: False, 1.1)
    ran = _join(shell, stage, elsewhere, made.out.strip())
    assert ran.code == WRONG_SETTINGS
    assert re.fullmatch(
        r"retia agent: the controller refuses the join: the join token expired at [\d: -]+ UTC; "
        r"make a new one with 'retia token create'",
        ran.err,
    ), ran.err


def test_a_token_that_was_used(shell: Shell, stage: Stage, elsewhere: Path) -> None:
    token = stage.client.create_token(TokenRequest(ttl_s=300)).token
    first = subprocess.Popen(
        retia(
            "agent",
            "--join",
            token,
            "--controller",
            _address(stage),
            "--host",
            "first",
            "--capture",
            "explicit",
        ),
        env={**os.environ, "RETIA_HOME": str(elsewhere / "first")},
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert wait_until(lambda: "first" in [h.id for h in stage.client.list_hosts()], 30)
    finally:
        end(first, 10)

    assert _join(shell, stage, elsewhere / "second", token) == Ran(
        WRONG_SETTINGS,
        "",
        "retia agent: the controller refuses the join: the join token was used by host first already; "
        "make one for each host with 'retia token create'",
    )


def test_a_token_of_another_mesh(shell: Shell, stage: Stage, elsewhere: Path) -> None:
    token = make_token(os.urandom(32), os.urandom(32), parse_trust_domain("cluster.local")).encode()

    ran = _join(shell, stage, elsewhere, token)

    assert ran.code == WRONG_SETTINGS
    assert re.fullmatch(
        r"retia agent: the controller at [\d.:]+ is not the one that made this join token: none of the \d certificates "
        r"that it shows has SHA-256 [0-9a-f]{64}. Check the address, or make a new token there",
        ran.err,
    ), ran.err


# -- helpers


def _lend(folder: Path) -> None:
    """Give a folder to the ordinary user, where this is root."""
    if os.getuid() == 0 and not Path("/root").stat().st_mode & 0o001:
        return
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)


@contextlib.contextmanager
def _one_of_the_controllers_ports() -> Iterator[tuple[int, int]]:
    """A mesh's index that nobody uses, with its controller's port held."""
    for index in range(15, 0, -1):
        port = 15012 + 100 * index
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            yield index, port
            return
    pytest.skip("all ports of controllers are in use")
