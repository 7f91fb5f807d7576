"""``OverloadPolicy``: what a service does when more comes than it can do. retia.dev.

Each part is on where its object is given, be it empty (``adaptiveConcurrency: {}``), with defaults that do
nothing to a healthy service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, Strict

from retia.config.codes import Code
from retia.config.duration import Duration
from retia.config.schema.base import Model, Problem
from retia.config.schema.policy_target import PolicyTargets
from retia.config.schema.request_match import HeaderMatch, PathMatch, length
from retia.config.schema.types import Percentage, PositiveDuration, Text

Positive = Annotated[int, Strict(), Field(ge=1, le=2**32 - 2)]


class RetryBudget(Model):
    """Retries of callers' proxies, as a share of what is under way; beyond it failures are final."""

    percent: Percentage = 20.0
    """Of the requests that are active and waiting. Envoy's default."""
    min_concurrency: Positive = 3
    """This many retries at once are always allowed. Envoy's default."""


class AdaptiveConcurrency(Model):
    """As many requests at once as the service answers without getting slower (Envoy's gradient controller).

    From time to time few requests are let through, to measure how fast the service is when idle; the rest of
    that moment's requests are refused once the floor is reached, which is what ``minConcurrency`` is for.
    """

    min_concurrency: Positive = 20
    """Never fewer at once. Envoy's own default of 3 refuses requests of healthy services while measuring."""
    max_concurrency: Positive = 1000
    """Never more at once."""
    update_interval: PositiveDuration = Duration(0.1)
    """How often the limit is reconsidered."""
    measure_interval: PositiveDuration = Duration(60.0)
    """How often the idle latency is measured anew."""
    percentile: Percentage = 50.0
    """Of the latencies, which one is compared."""
    buffer_percent: Percentage = 25.0
    """How much slower than idle is no sign of overload. Envoy's own default is 25."""

    def problems(self) -> Iterator[Problem]:
        if self.min_concurrency > self.max_concurrency:
            message = f"is {self.min_concurrency}, more than maxConcurrency ({self.max_concurrency})"
            yield Problem(("minConcurrency",), message)


class AdmissionControl(Model):
    """Refuse a growing share of requests while most of the service's answers are failures.

    Failures are 5xx, and the gRPC statuses that say the server is at fault.
    """

    success_percent: Percentage = 50.0
    """Below this share of successes requests begin to be refused. Envoy's own default is 95."""
    sampling_window: PositiveDuration = Duration(30.0)
    """Over which answers are looked at; whole seconds."""
    min_requests_per_second: Positive = 5
    """With less traffic nothing is refused."""
    max_refused_percent: Percentage = 80.0
    """Some requests are always let through, to see the service recover."""

    def problems(self) -> Iterator[Problem]:
        if not float(self.sampling_window).is_integer():
            yield Problem(("samplingWindow",), "must be whole seconds", Code.BAD_VALUE)
        if not self.success_percent >= 1:
            yield Problem(("successPercent",), "must be 1 or more: Envoy's least", Code.BAD_VALUE)


class CriticalMatch(Model):
    """Conditions on a request, all of which must hold."""

    method: Text = ""
    """Empty: any."""
    path: PathMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not (self.method or self.path or self.headers):
            yield Problem((), "must have at least one of method, path, headers", Code.MISSING_FIELD)


class Priority(Model):
    """Two classes of requests: those that are critical, and the others, which are shed first.

    Each class has a ceiling of its own on requests under way at the service, so that the others can't take
    the places of the critical. Adaptive concurrency and admission control spare critical requests. A caller
    may call its requests critical by a header; limit who may set it at the gateway.
    """

    critical: Annotated[tuple[CriticalMatch, ...], length(1, 32)]
    """A request is critical if one of these holds."""
    max_concurrency: Positive
    """Requests at once of the others, in each instance; more are refused with 503."""
    critical_max_concurrency: Positive | None = None
    """Requests at once of the critical. Absent: no limit."""


class OverloadPolicy(PolicyTargets):
    """For services, workloads and (adaptive concurrency and admission control) gateways."""

    retry_budget: RetryBudget | None = None
    """Needs ``targetRefs`` to Services: it is kept by their callers."""
    adaptive_concurrency: AdaptiveConcurrency | None = None
    admission_control: AdmissionControl | None = None
    priority: Priority | None = None
    """For services and workloads."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from self.no_routes()
        parts = ("retry_budget", "adaptive_concurrency", "admission_control", "priority")
        if not any(getattr(self, part) for part in parts):
            message = "must have one of retryBudget, adaptiveConcurrency, admissionControl, priority"
            yield Problem((), message, Code.MISSING_FIELD)
        kinds = {ref.kind for ref in self.target_refs}
        if self.retry_budget is not None and kinds != {"Service"}:
            yield Problem(("retryBudget",), "needs targetRefs to Services: it is kept by their callers")
        if self.priority is not None and "Gateway" in kinds:
            yield Problem(("priority",), "is for Services: a gateway has no application to protect")
        if self.retry_budget is not None and any(ref.section_name for ref in self.target_refs):
            yield Problem(("retryBudget",), "is for all ports of a Service; leave sectionName out")
