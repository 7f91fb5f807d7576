"""The command line explains what a mesh does, and takes back what was done to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retia.cli import main
from retia.cli.tour import shop
from retia.cli.tour.client import Visitor
from retia.cli.tour.processes import retia, wait_until
from retia.cli.tour.stage import Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]

ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    timeout: 3s
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /gone}}]
    route: [{destination: {host: reviews, subset: v9}}]
  - match: [{uri: {prefix: /fixed}}]
    directResponse: {status: 202}
  - route: [{destination: {host: reviews, subset: v1}}]
"""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ran]


@pytest.fixture
def command(shop_stage: Stage, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line against the mesh: in this process, as starting Python takes the longest; what is
    sent from a workload's place is sent by a process of its own."""

    def run(*arguments: str) -> Ran:
        if "--send" in arguments:
            done = subprocess.run(
                retia(*arguments),
                env=shop_stage.environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            return Ran(done.returncode, done.stdout, done.stderr)
        capfd.readouterr()
        code = main.invoke(["--home", str(shop_stage.home), *arguments])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
def routes(command: Command, tmp_path: Path, shop_stage: Stage) -> Path:
    """The file of rules, applied and in force."""
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    assert command("apply", "-f", str(file)).code == 0
    shop_stage.settle(shop_stage.client.apply([]))
    return file


@pytest.mark.parametrize(
    ("path", "headers", "where"),
    [
        ("/reviews/1", ("-H", "end-user: jason"), "default/reviews-v2"),
        ("/reviews/1", (), "default/reviews-v1"),
    ],
)
def test_what_is_sent_goes_where_it_was_said_to_go(
    command: Command, routes: Path, path: str, headers: tuple[str, ...], where: str
) -> None:
    url = f"http://reviews:9080{path}"
    ran = command("explain", "--from", "products", "--to", url, *headers, "--send", "-o", "json")
    assert ran.code == 0, ran
    outcome = ran.json["outcome"]
    assert (outcome["agrees"], outcome["status"]) == (True, 200)
    assert outcome["reached"][0]["workload"].startswith(where)
    assert any(workload.startswith(where) for workload in ran.json["endpoints"].values())


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/broken", 418, "RT5012"), ("/gone", 503, "RT5002"), ("/fixed", 202, "")],
    ids=["fault", "no such subset", "direct response"],
)
def test_what_the_proxy_answers_by_itself_is_foretold(
    command: Command, routes: Path, path: str, status: int, code: str
) -> None:
    url = f"http://reviews:9080{path}"
    ran = command("explain", "--from", "products", "--to", url, "--send", "-o", "json")
    assert ran.code == 0, ran
    assert ran.json["status"] == [status]
    assert ran.json["outcome"]["status"] == status
    assert ran.json["outcome"]["headers"].get("retia-code", "") == code


def test_the_rule_is_named_with_its_file_and_the_losers_with_reasons(command: Command, routes: Path) -> None:
    ran = command("explain", "--from", "products", "--to", "http://reviews:9080/reviews/1")
    assert ran.code == 0
    assert f"VirtualService/default/reviews ({routes}:1) spec.http[4]" in ran.out
    assert "end-user" in ran.out  # why the first rule lost


def test_a_connection_without_http(command: Command) -> None:
    ran = command("explain", "--from", "products", "--to", "tcp://inventory:7070", "--send", "-o", "json")
    assert ran.code == 0, ran
    assert ran.json["outcome"]["reached"][0]["workload"].startswith("default/inventory-")


def test_a_name_that_is_none(command: Command) -> None:
    ran = command("explain", "--from", "products", "--to", "http://nowhere:80/")
    assert ran.code == 1
    assert "nowhere is no name of the mesh" in ran.out


def test_a_response_says_why_and_why_says_more(command: Command, routes: Path, shop_visitor: Visitor) -> None:
    answer = shop_visitor.http("http://reviews:9080/broken")
    assert answer.headers["retia-code"] == "RT5012"
    assert "A fault was injected" in command("why", answer.headers["proxy-status"]).out
    assert "retia-code" not in shop_visitor.http("http://reviews:9080/reviews/1").headers


def test_a_difference_is_foretold_and_then_taken_back(
    command: Command, tmp_path: Path, shop_visitor: Visitor
) -> None:
    shop_visitor.http("http://reviews:9080/reviews/1")  # its proxy holds the virtual host from now on
    file = tmp_path / "v3.yaml"
    file.write_text(ROUTES.replace("subset: v1", "subset: v3"))
    told = command("diff", "-f", str(file), "--full").out
    assert "VHDS 9080/reviews.default.svc.cluster.local:9080" in told
    assert "added" in told
    assert "v3|reviews" in told

    assert command("apply", "-f", str(file), "--reason", "try v3").code == 0
    newest = command("history", "-o", "json").json[0]
    assert (newest["reason"], newest["changes"][0]["action"]) == ("try v3", "configured")
    assert command("undo").out == "VirtualService/default/reviews configured\n"
    assert "no proxy would change" not in command("diff", "-f", str(file)).out
    assert command("undo").code == 0  # takes the undo back
    assert "no proxy would change" in command("diff", "-f", str(file)).out


def test_pruning_touches_the_owners_objects_only(command: Command, tmp_path: Path) -> None:
    text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {0}}}\nspec:\n"
    text += "  hosts: [{0}.example.com]\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n"
    text += "  resolution: DNS\n"
    file = tmp_path / "entries.yaml"
    file.write_text("---\n".join(text.format(name) for name in ("one", "two")))
    assert command("apply", "-f", str(file), "--owner", "shop").code == 0
    file.write_text(text.format("one"))
    ran = command("apply", "-f", str(file), "--owner", "shop", "--prune")
    assert ran.out == "ServiceEntry/default/one unchanged\nServiceEntry/default/two deleted\n"
    ran = command("apply", "-f", str(file), "--owner", "other")
    assert (ran.code, "belongs to the owner 'shop'" in ran.err) == (1, True)


def test_a_change_in_between_is_noticed(command: Command, tmp_path: Path, routes: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(command("get", "vs", "reviews", "-o", "yaml").out)
    assert "resourceVersion" in mine.read_text()
    routes.write_text(ROUTES.replace("timeout: 3s", "timeout: 4s"))
    assert command("apply", "-f", str(routes)).code == 0
    ran = command("apply", "-f", str(mine))
    assert ran.code == 1
    assert "somebody has changed it since" in ran.err


@pytest.fixture
def permissive(shop_stage: Stage) -> Iterator[None]:
    """The shop demands mutual TLS; without that policy it takes plaintext as well."""
    for policy in shop_stage.client.list_objects("PeerAuthentication"):
        shop_stage.client.delete_object("PeerAuthentication", policy.namespace, policy.name)
    yield
    shop_stage.apply(shop.config("strict"))


@pytest.mark.usefixtures("permissive")
def test_a_bypass_goes_around_the_proxy_and_ends_by_itself(
    command: Command, routes: Path, shop_stage: Stage, shop_visitor: Visitor
) -> None:
    """Around the proxy no rule holds: what a rule answers, the service does not know."""
    url = "http://reviews:9080/broken"
    (mine,) = [w.id for w in shop_stage.workloads() if not w.service]
    assert wait_until(lambda: shop_visitor.http(url).status == 418, 10)
    assert command("bypass", mine, "--for", "1h", "--reason", "a test").code == 0
    assert wait_until(lambda: shop_visitor.http(url).status == 404, 10)
    assert shop_visitor.http("http://reviews:9080/reviews/1").status == 200
    assert f"bypass of {mine}" in command("status").out
    assert command("bypass", mine, "--for", "1s").code == 0
    assert wait_until(lambda: shop_visitor.http(url).status == 418, 10)
    assert "uses its proxy" in command("bypass").err


def test_a_bypass_is_refused_where_mutual_tls_is_demanded(command: Command, shop_stage: Stage) -> None:
    (mine,) = [w.id for w in shop_stage.workloads("products")]
    ran = command("bypass", mine, "--for", "1m")
    assert (ran.code, "demand mutual TLS" in ran.err) == (1, True)
