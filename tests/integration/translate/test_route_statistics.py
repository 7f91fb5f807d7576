"""``statPrefix``: a real Envoy counts the requests of a match under its own name."""

from __future__ import annotations

from tests.integration.translate.test_on_demand import made, running

RULES = """
    kind: VirtualService
    metadata: {name: counted}
    spec:
      hosts: [reviews]
      http:
      - match: [{uri: {prefix: /paid}, statPrefix: paid}]
        route: [{destination: {host: reviews, subset: v1}}]
"""


async def test_requests_of_a_match_are_counted_by_its_name() -> None:
    async with running(made().apply(RULES)) as lazy:
        for _ in range(3):
            assert (await lazy.get("reviews:9080/paid"))[0] == 200
        assert (await lazy.get("reviews:9080/"))[0] == 200
        assert "route.paid.upstream_rq_completed: 3" in await lazy.stats("route.paid")
