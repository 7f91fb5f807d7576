"""services, workloads, proxies, hosts, status, proxy config, token, version: what is shown."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from retia.api import schema
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli.conftest import Run

NOW = int(time.time())


@pytest.fixture
def shop(backend: FakeBackend) -> FakeBackend:
    backend.services = [
        schema.ServiceDetail(
            host="reviews.default.svc.cluster.local",
            namespace="default",
            name="reviews",
            vip="240.240.0.1",
            ports=[schema.ServicePortInfo(number=9080, protocol="http")],
            endpoints=1,
            mtls="permissive",
            endpoint_list=[
                schema.EndpointInfo(
                    service_port=9080,
                    address="127.64.0.1",
                    port=15006,
                    wire="mtls",
                    workload="default/reviews-v1-0",
                    labels={"version": "v1"},
                )
            ],
        )
    ]
    backend.workloads = [
        schema.WorkloadInfo(
            id="default/reviews-v1-0",
            namespace="default",
            service="reviews",
            version="v1",
            ports=[schema.WorkloadPortInfo(number=9080, app_port=8000, protocol="http", listening=False)],
            state="starting",
        )
    ]
    backend.proxies = [
        schema.ProxyInfo(
            id=f"default/{name}",
            workload=f"default/{name}",
            state="ready",
            connected=True,
            sync=[schema.TypeSync(type="CDS", wanted=2, acked=acked)],
            certificate_expiry=NOW + 3600,
            allocated_bytes=9_400_000,
        )
        for name, acked in (("reviews-v1-0", 2), ("reviews-v1-1", 1), ("web-0", 2))
    ]
    return backend


def test_services(run: Run, shop: FakeBackend) -> None:
    ran = run("services")
    assert ran.out.splitlines()[1].split() == [
        "reviews",
        "default",
        "reviews.default.svc.cluster.local",
        "240.240.0.1",
        "9080/http",
        "1",
        "permissive",
        "run",
    ]
    assert run("services", "-o", "json").json[0]["vip"] == "240.240.0.1"
    assert "127.64.0.1:15006  mtls  default/reviews-v1-0" in run("services", "reviews").out


def test_an_unknown_service_is_the_controllers_refusal(run: Run, shop: FakeBackend) -> None:
    ran = run("services", "nothing")
    assert (ran.code, ran.err) == (1, "retia: there is no service 'nothing'; see 'retia services'\n")


def test_workloads_show_ports_that_are_not_open_yet(run: Run, shop: FakeBackend) -> None:
    assert "9080/http(closed)" in run("workloads").out
    assert run("workloads", "-n", "other").err == "no workloads; start one with 'retia run' or 'retia up'\n"


def test_proxies_are_synced_by_what_they_acknowledged(run: Run, shop: FakeBackend) -> None:
    lines = run("proxies").out.splitlines()
    assert lines[1].split()[2:4] == ["ready", "synced"]
    assert "stale CDS 1/2" in lines[2]
    assert "9.4 MB" in lines[1]


def test_a_refused_resource_is_shown_with_its_object_and_field(run: Run, shop: FakeBackend) -> None:
    nack = schema.Nack(
        resource="CDS outbound|1||x", error="bad", object="DestinationRule/default/x", field="spec.y"
    )
    shop.proxies = [shop.proxies[0].model_copy(update={"nacks": [nack]})]
    ran = run("proxies")
    assert "nacked 1" in ran.out
    assert ran.err == (
        "default/reviews-v1-0 refused CDS outbound|1||x (from DestinationRule/default/x: spec.y): bad\n"
    )


@pytest.mark.parametrize("name", ["default/web-0", "web-0", "we"])
def test_proxy_config_finds_a_proxy_by_name(run: Run, shop: FakeBackend, name: str) -> None:
    cluster = {"cluster": {"name": "outbound|9080||x", "type": "EDS", "transport_socket": {}}}
    dump = {
        "configs": [
            {
                "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
                "dynamic_active_clusters": [{"version_info": "v7", **cluster}],
            }
        ]
    }
    shop.pages["/config_dump"] = json.dumps(dump)
    ran = run("proxy", "config", name, "clusters")
    assert ran.out.splitlines()[1].split() == [
        "outbound|9080||x",
        "EDS",
        "ROUND_ROBIN",
        "mtls",
        "active",
        "v7",
    ]
    assert shop.calls[-1] == ("proxy_query", "default/web-0", "/config_dump")


def test_proxy_config_shows_counters(run: Run, shop: FakeBackend) -> None:
    stats = [{"name": "retia.b", "value": 2}, {"name": "a", "value": 0}, {"histograms": {}}]
    shop.pages["/stats?format=json&usedonly"] = json.dumps({"stats": stats})
    ran = run("proxy", "config", "web-0", "stats")
    assert [line.split() for line in ran.out.splitlines()[1:]] == [["a", "0"], ["retia.b", "2"]]


def test_an_ambiguous_or_unknown_proxy_is_said(run: Run, shop: FakeBackend) -> None:
    ran = run("proxy", "config", "reviews", "routes")
    assert ran.err == (
        "retia: 'reviews' fits several proxies: default/reviews-v1-0, default/reviews-v1-1; "
        "say one of them in full\n"
    )
    assert "no proxy of 'x' is known" in run("proxy", "config", "x", "routes").err


def test_endpoints_show_ejection(run: Run, shop: FakeBackend) -> None:
    address = {"socket_address": {"address": "127.64.0.1", "port_value": 15006}}
    health = {"failed_outlier_check": True, "eds_health_status": "HEALTHY"}
    page = {
        "cluster_statuses": [{"name": "c", "host_statuses": [{"address": address, "health_status": health}]}]
    }
    shop.pages["/clusters?format=json"] = json.dumps(page)
    assert "127.64.0.1:15006  ejected" in run("proxy", "config", "web-0", "endpoints").out


def test_hosts_and_status(run: Run, shop: FakeBackend) -> None:
    shop.hosts = [schema.HostInfo(id="h1", lease="held", clock_skew_s=-2.5, connected=False)]
    assert "h1    held   no" in run("hosts").out
    shop.info = shop.info.model_copy(update={"registry_frozen": True, "registry_reason": "just started"})
    assert "frozen: just started" in run("status").out


def test_a_clock_that_is_too_wrong_is_said_with_the_hosts(run: Run, shop: FakeBackend) -> None:
    shop.hosts = [schema.HostInfo(id="h1", clock_skew_s=-301), schema.HostInfo(id="h2", clock_skew_s=299)]
    said = run("hosts").err
    assert "the clock of host h1 is 301 s behind the controller's; set it (NTP)" in said
    assert "h2" not in said


def test_token_is_the_only_word_on_stdout(run: Run, shop: FakeBackend) -> None:
    ran = run("token", "create", "--ttl", "10m", "--host", "db-1")
    assert ran.out == "retia-token-1\n"
    assert "retia agent --join TOKEN --controller" in ran.err
    assert shop.calls == [("create_token", 600, "db-1")]


@pytest.mark.parametrize("ttl", ["", "10", "m", "-1m", "8d", "0s", "1.5h"])
def test_a_wrong_ttl_is_wrong_usage(run: Run, home: Path, ttl: str) -> None:
    assert run("token", "create", "--ttl", ttl).code == 2


def test_version_works_with_nothing_running(run: Run, home: Path) -> None:
    facts = run("version", "-o", "json").json
    assert facts["retia"]
    assert facts["controller"] == facts["agent"] == ""


def test_backup_asks_the_controller_for_an_absolute_path(
    run: Run, shop: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("backup", "b.tar.gz").out == f"{tmp_path}/b.tar.gz\n"
    assert shop.calls == [("backup", f"{tmp_path}/b.tar.gz")]


def test_restore_refuses_while_a_controller_runs(run: Run, shop: FakeBackend, tmp_path: Path) -> None:
    ran = run("restore", str(tmp_path / "b.tar.gz"))
    assert ran.err == "retia: a controller is running for this RETIA_HOME; stop it first ('retia down')\n"
