"""analyze, why, explain, history, undo, diff: arguments, request, text, JSON and exit status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retia.api import schema
from retia.api.backend import ApiError
from retia.cli import sending
from retia.config.replies import REPLIES
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli import fake_agent
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_agent import FakeAgent

RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
"""
WARNING = schema.Finding(
    code="RT0301", level="warning", message="is x, which is not", object="VirtualService/d/x"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.yaml"
    path.write_text(RULE)
    return path


class TestAnalyze:
    def test_files_need_no_mesh(self, run: Run, file: Path) -> None:
        ran = run("analyze", "-f", str(file))
        assert ran.code == 0
        assert ran.out.startswith(f"{file}:7: warning RT0302 VirtualService/default/reviews spec.http[0]")
        assert "effect: " in ran.out
        assert "remedy: " in ran.out
        assert ran.err == "1 warning\n"

    def test_the_least_level_that_fails_can_be_chosen(self, run: Run, file: Path) -> None:
        assert run("analyze", "-f", str(file), "--fail-on", "warning").code == 1
        assert run("analyze", "-f", str(file), "--schema-only", "--fail-on", "info").code == 0
        file.write_text("kind: x")
        assert run("analyze", "-f", str(file), "--schema-only").code == 1
        assert run("analyze", "-f", str(file), "--schema-only", "--fail-on", "never").code == 0

    def test_the_running_mesh(self, run: Run, backend: FakeBackend, file: Path) -> None:
        backend.findings = [WARNING]
        assert run("analyze", "-o", "json").json[0]["code"] == "RT0301"
        run("analyze", "-f", str(file), "--live")
        assert backend.calls == [("analyze", []), ("analyze", [str(file)])]

    def test_contradictions_are_refused(self, run: Run, home: Path) -> None:
        assert run("analyze", "-f", "x", "--live", "--schema-only").code == 2
        assert run("analyze", "--live").code == 2


class TestWhy:
    @pytest.mark.parametrize("code", ["RT0301", "RT5003", *REPLIES])
    def test_every_code_is_explained(self, run: Run, home: Path, code: str) -> None:
        ran = run("why", code)
        assert ran.code == 0
        assert ran.out.startswith(f"{code}: ")
        assert "remedy: " in ran.out

    @pytest.mark.parametrize(
        ("header", "code"),
        [
            ('proxy-status: default/web-1; error=x; details="no_healthy_upstream; UH"', "RT5003"),
            ('a; error=connection_refused; details="upstream_reset{TLS_error:_x}; URX,UF"', "RT5006"),
            ('retia; error=http_request_denied; details="RT5015"', "RT5015"),
            ("retia-code: RT5013", "RT5013"),
        ],
    )
    def test_a_header_can_be_pasted(self, run: Run, home: Path, header: str, code: str) -> None:
        assert run("why", header, "-o", "json").json["code"] == code

    def test_the_header_tells_what_the_code_leaves_open(self, run: Run, home: Path) -> None:
        header = 'retia-code: RT5004 proxy-status: a; error=x; details="upstream_reset{TLS_error:_x}; UF"'
        assert [each["code"] for each in run("why", header, "-o", "json").json] == ["RT5004", "RT5006"]

    def test_a_gateway_says_the_kind_of_error_alone(self, run: Run, home: Path) -> None:
        ran = run("why", "proxy-status: retia; error=destination_unavailable", "-o", "json")
        assert [each["code"] for each in ran.json] == ["RT5002", "RT5003"]

    def test_what_is_none_is_said(self, run: Run, home: Path) -> None:
        assert run("why", "RT9999").err == (
            "retia: there is no code RT9999; docs/reference/findings.md and replies.md list them\n"
        )
        assert run("why", "hello").code == 1


def explanation(**more: object) -> schema.ExplainResult:
    hop = schema.ExplainHop(
        proxy="default/web-1",
        title="how it leaves",
        lines=["listener outbound-http"],
        resources=[schema.ExplainResource(resource="CDS x", state="not asked for")],
    )
    fields = {
        "proxy": "default/web-1",
        "workload": "default/web-1",
        "listener": "outbound-http",
        "address": "240.240.0.1",
        "port": 80,
        "hops": [hop],
        "clusters": {"outbound|80||reviews": 1.0},
        "endpoints": {"127.64.0.1:15006": "default/reviews-1"},
    }
    return schema.ExplainResult.model_validate(fields | more)


class TestExplain:
    def test_the_call_is_passed_on_and_the_path_shown(self, run: Run, backend: FakeBackend) -> None:
        backend.explanation = explanation()
        ran = run("explain", "--from", "web", "--to", "http://reviews/", "-X", "POST", "-H", "x-a: 1")
        assert backend.calls == [("explain", "web", "http://reviews/", "POST", [("x-a", "1")])]
        assert "  listener outbound-http\n  it would ask for CDS x\n" in ran.out
        assert "127.64.0.1:15006 is default/reviews-1" in ran.out

    def test_a_call_that_enters_no_proxy_fails(self, run: Run, backend: FakeBackend) -> None:
        backend.explanation = explanation(hops=[], notes=["x is no name of the mesh"])
        ran = run("explain", "--from", "web", "--to", "http://x/")
        assert (ran.code, "note: x is no name of the mesh" in ran.out) == (1, True)

    def test_a_header_must_be_one(self, run: Run, home: Path) -> None:
        ran = run("explain", "--from", "web", "--to", "http://x/", "-H", "nothing")
        assert (ran.code, ran.err) == (2, "retia: -H 'nothing': write it as 'NAME: VALUE'\n")


class TestAgreement:
    """What is compared once a request was sent."""

    REACHED = (("outbound|80||reviews", "127.64.0.1:15006"),)

    def test_a_response_from_where_it_was_said_to_go(self) -> None:
        assert sending.compare(explanation(), sending.Answer(200), self.REACHED) == []

    @pytest.mark.parametrize(
        ("answer", "reached", "said"),
        [
            (sending.Answer(200), (("outbound|80|v2|reviews", "x"),), "it went to outbound|80|v2|reviews"),
            (sending.Answer(503, headers={"retia-code": "RT5003"}), (), "answered 503 by itself (RT5003)"),
            (sending.Answer(error="reset"), (), "but reset"),
            (sending.Answer(200), (), "no endpoint"),
        ],
    )
    def test_anything_else_is_said(
        self, answer: sending.Answer, reached: tuple[tuple[str, str], ...], said: str
    ) -> None:
        (problem,) = sending.compare(explanation(), answer, reached)
        assert said in problem

    def test_an_answer_of_the_proxy(self) -> None:
        told = explanation(clusters={}, status=[418])
        assert sending.compare(told, sending.Answer(418), ()) == []
        assert len(sending.compare(told, sending.Answer(200), ())) == 1

    def test_a_refused_connection(self) -> None:
        told = explanation(clusters={}, status=[])
        assert sending.compare(told, sending.Answer(error="refused"), ()) == []
        assert len(sending.compare(told, sending.Answer(200), ())) == 1
        assert len(sending.compare(told, sending.Answer(), ())) == 1, "bytes alone: it stood"

    def test_a_callee_that_was_to_refuse_and_did_not(self) -> None:
        told = explanation(
            arrivals={"outbound|80||reviews": {"proxy": "default/reviews-1", "refused": "no listener"}}
        )
        for reached in (self.REACHED, ()):
            for answer in (sending.Answer(200), sending.Answer(403), sending.Answer()):
                problems = sending.compare(told, answer, reached)
                outcome = sending.Outcome(answer, reached, tuple(problems), {})
                assert "default/reviews-1 was expected to refuse the connection, but" in problems[0]
                assert "prediction and outcome agree" not in outcome.lines()
        closed = sending.Answer(503, headers={"retia-code": "RT5004"})
        assert sending.compare(told, closed, self.REACHED) == []
        assert sending.compare(told, sending.Answer(error="closed"), self.REACHED) == []

    def test_a_callee_that_was_to_answer_by_itself(self) -> None:
        told = explanation(arrivals={"outbound|80||reviews": {"proxy": "default/reviews-1", "status": [403]}})
        assert sending.compare(told, sending.Answer(403), self.REACHED) == []
        (problem,) = sending.compare(told, sending.Answer(200), self.REACHED)
        assert problem == "status 403 of default/reviews-1 was expected, but the answer is 200"

    def test_only_a_cluster_that_was_called_counts_among_several(self) -> None:
        told = explanation(
            clusters={"a": 0.5, "b": 0.5}, arrivals={"a": {"proxy": "d/a", "refused": "no listener"}}
        )
        assert sending.compare(told, sending.Answer(200), (("b", "x"),)) == []
        assert len(sending.compare(told, sending.Answer(200), (("a", "x"),))) == 1


class TestHistory:
    ENTRY = schema.HistoryEntry(
        revision=7,
        time=0,
        reason="canary",
        changes=[
            schema.HistoryChange(
                object="VirtualService/d/x", action="configured", before={"a": 1}, after={"a": 2}
            )
        ],
    )

    def test_a_line_for_each_write(self, run: Run, backend: FakeBackend) -> None:
        backend.entries = [self.ENTRY]
        ran = run("history")
        assert ran.out.splitlines()[1].split("  ")[-1].strip() == "canary"
        assert backend.calls == [("history", "", "default", "", 0, 20)]

    def test_one_object_with_what_differs(self, run: Run, backend: FakeBackend) -> None:
        backend.entries = [self.ENTRY]
        ran = run("history", "vs", "x", "-n", "d")
        assert "  -a: 1\n  +a: 2\n" in ran.out
        assert backend.calls == [("history", "vs", "d", "x", 0, 20)]

    def test_a_kind_needs_a_name(self, run: Run, home: Path) -> None:
        assert run("history", "vs").code == 2


class TestUndo:
    def test_what_became_is_said(self, run: Run, backend: FakeBackend) -> None:
        item = schema.ApplyItem(object="VirtualService/d/x", action="deleted")
        backend.undone = schema.ApplyResult(applied=True, items=[item])
        assert run("undo", "7", "--reason", "wrong").out == "VirtualService/d/x deleted\n"
        assert backend.calls == [("undo", 7, False, "wrong")]

    def test_a_conflict_is_said(self, run: Run, backend: FakeBackend) -> None:
        backend.fail = ApiError("conflict", "x has changed since revision 7")
        ran = run("undo")
        assert (ran.code, ran.err) == (1, "retia: x has changed since revision 7\n")


class TestDiff:
    def test_proxies_with_the_same_changes_stand_together(
        self, run: Run, backend: FakeBackend, file: Path
    ) -> None:
        change = schema.ResourceDiff(
            resource="CDS x", action="added", objects=["DestinationRule/d/x"], text="+a"
        )
        group = schema.ProxyDiff(proxies=["d/a", "d/b"], resources=[change])
        backend.difference = schema.DiffResult(groups=[group], unchanged=1)
        ran = run("diff", "-f", str(file), "--full")
        assert ran.out == (
            "\nd/a, d/b:\n  added    CDS x (DestinationRule/d/x)\n      +a\n"
            "\n1 other proxy would not change\n"
        )
        assert backend.calls == [("diff", [str(file)], True)]

    def test_nothing_would_change(self, run: Run, backend: FakeBackend, file: Path) -> None:
        assert run("diff", "-f", str(file)).out == "no proxy would change\n"


class TestPrune:
    def test_an_owner_is_passed_on(self, run: Run, backend: FakeBackend, file: Path) -> None:
        run("apply", "-f", str(file), "--owner", "shop", "--prune", "--reason", "tidy")
        assert backend.calls[0] == ("apply as", "shop", True, "tidy")

    def test_pruning_needs_an_owner(self, run: Run, home: Path, file: Path) -> None:
        assert run("apply", "-f", str(file), "--prune").code == 2


class TestBypass:
    @pytest.fixture
    def agent(self, home: Path) -> Iterator[FakeAgent]:
        fake = FakeAgent()
        with fake_agent.serving(fake, home / "run" / "agent.sock"):
            yield fake

    def test_it_begins_and_ends(self, run: Run, agent: FakeAgent, backend: FakeBackend) -> None:
        ran = run("bypass", "web-1", "--for", "10m", "--reason", "loops")
        assert ran.out.startswith("default/web-1 goes around its proxy, until ")
        assert run("bypass", "web-1", "--end").out == "default/web-1 uses its proxy\n"
        assert agent.calls == [("bypass", "default/web-1 600 loops"), ("bypass", "default/web-1 0")]

    def test_it_needs_no_controller(self, run: Run, agent: FakeAgent) -> None:
        ran = run("bypass", "web-1", "--for", "10m")
        assert (ran.code, "is not known" in ran.err) == (0, True)

    def test_a_service_that_demands_mutual_tls_forbids_it(
        self, run: Run, agent: FakeAgent, backend: FakeBackend
    ) -> None:
        backend.services = [
            schema.ServiceDetail(host="db.default.svc", namespace="default", name="db", mtls="strict")
        ]
        ran = run("bypass", "web-1", "--for", "10m")
        assert (ran.code, "refused: db.default.svc demand mutual TLS" in ran.err) == (1, True)
        assert agent.calls == []
        assert run("bypass", "web-1", "--for", "10m", "--force").code == 0

    @pytest.mark.parametrize(
        "arguments", [["x"], ["x", "--for", "1m", "--end"], ["x", "--for", "2d"], ["--end"]]
    )
    def test_contradictions_are_refused(self, run: Run, home: Path, arguments: list[str]) -> None:
        assert run("bypass", *arguments).code == 2
