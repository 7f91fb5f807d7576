"""Which destination a client means."""

from __future__ import annotations

import pytest

from retia.model.ids import expansions
from retia.policy.registry import Destination, resolve_address, resolve_name, spellings
from tests.support.world import World, fqdn

SUFFIX = "svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "namespace", "found"),
    [
        ("reviews", "default", fqdn("reviews")),
        ("reviews", "other", None),
        ("reviews.default", "other", fqdn("reviews")),
        ("reviews.default.svc", "other", fqdn("reviews")),
        (fqdn("reviews"), "other", fqdn("reviews")),
        (f"{fqdn('reviews')}.", "other", fqdn("reviews")),
        ("api.example.com", "other", "api.example.com"),
        ("other.example.com", "other", None),
    ],
)
def test_a_name_means_a_service(name: str, namespace: str, found: str | None) -> None:
    world = (
        World()
        .service("reviews", 80)
        .apply("""
        kind: ServiceEntry
        metadata: {name: api}
        spec:
          hosts: [api.example.com]
          ports: [{number: 80, name: http, protocol: HTTP}]
          resolution: DNS
    """)
    )

    destination = resolve_name(world.client().view, name, namespace, 80)

    assert (destination.host if destination else None) == found


def test_a_port_that_the_service_lacks_is_unknown() -> None:
    assert resolve_name(World().service("reviews", 80).client().view, "reviews", "default", 81) is None


def test_an_object_cannot_take_over_a_short_name() -> None:
    world = (
        World()
        .service("reviews", 80)
        .apply("""
        kind: ServiceEntry
        metadata: {name: thief}
        spec:
          hosts: [reviews.default]
          ports: [{number: 80, name: http, protocol: HTTP}]
          resolution: DNS
    """)
    )

    found = resolve_name(world.client().view, "reviews.default", "default", 80)

    assert found == Destination(fqdn("reviews"), 80)


def test_the_narrowest_wildcard_with_the_port_is_found() -> None:
    world = World()
    for name, host, port in (("a", "*.com", 80), ("b", "*.example.com", 80), ("c", "*.x.example.com", 81)):
        world.apply(f"""
            kind: ServiceEntry
            metadata: {{name: {name}}}
            spec:
              hosts: ["{host}"]
              ports: [{{number: {port}, name: http, protocol: HTTP}}]
              resolution: NONE
        """)
    view = world.client().view

    assert resolve_name(view, "y.x.example.com", "default", 80) == Destination("*.example.com", 80)  # type: ignore[arg-type]
    assert resolve_name(view, "y.x.example.com", "default", 81) == Destination("*.x.example.com", 81)  # type: ignore[arg-type]
    assert resolve_name(view, "example.org", "default", 80) is None


def test_addresses_are_virtual_or_of_one_endpoint() -> None:
    world = World().service("reviews", 80)
    view = world.client().view

    assert resolve_address(view, "240.240.0.1", 80) == Destination(fqdn("reviews"), 80)
    assert resolve_address(view, "127.64.0.1", 80) == Destination(fqdn("reviews"), 80, "127.64.0.1:80")
    assert resolve_address(view, "127.64.0.1", 81) is None


def test_an_address_of_two_services_is_ambiguous() -> None:
    world = (
        World()
        .service("reviews", 80)
        .apply("""
        kind: Service
        metadata: {name: front}
        spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
    """)
    )

    found = resolve_address(world.client().view, "127.64.0.1", 80)

    assert found == Destination(fqdn("front"), 80, "127.64.0.1:80", (fqdn("reviews"),))


def test_spellings_expand_to_what_they_are_spellings_of() -> None:
    for spelling in spellings(fqdn("reviews"), "default", "default", SUFFIX):
        assert expansions(spelling, "default", SUFFIX)[0] == fqdn("reviews")
    assert "reviews" not in spellings(fqdn("reviews"), "default", "other", SUFFIX)
    assert spellings("api.example.com", "default", "default", SUFFIX) == ("api.example.com",)
