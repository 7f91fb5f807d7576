"""Several VirtualServices for one host."""

from __future__ import annotations

from retia.policy.routing import HttpRules, http_rules, rules_of
from retia.policy.routing.merge import MAX_MATCHES
from tests.support.world import Mesh, World, fqdn


def virtual_service(name: str, *rules: str, more: str = "", namespace: str = "default") -> str:
    return (
        f"kind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{hosts: [reviews.default.svc.cluster.local], {more} http: [{', '.join(rules)}]}}"
    )


def to(subset: str, *matches: str) -> str:
    match = f"match: [{', '.join(matches)}], " if matches else ""
    return (
        f"{{{match}route: [{{destination: {{host: reviews.default.svc.cluster.local, subset: {subset}}}}}]}}"
    )


def mesh(*objects: str, client: str = "web", namespace: str = "default") -> Mesh:
    world = World().service("reviews").service("web").service("web", namespace="other")
    for text in objects:
        world.apply(text)
    return world.client(client, namespace)


def read(world: Mesh) -> HttpRules:
    found = http_rules(world.view, (fqdn("reviews"), 9080))
    assert found is not None
    return found


def order(found: HttpRules) -> list[str]:
    return [f"{rule.ref.name} {rule.field}" for rule in found.rules if rule.ref]


def codes(found: HttpRules) -> list[tuple[str, str]]:
    return [(each.code, each.ref.name) for each in found.findings if each.ref and each.code == "RT0304"]


A, B = "{uri: {prefix: /a}}", "{uri: {prefix: /b}}"


def test_older_objects_come_first_and_rules_for_everything_last() -> None:
    found = read(
        mesh(virtual_service("first", to("v1", A), to("v1")), virtual_service("second", to("v2", B)))
    )
    assert order(found) == ["first spec.http[0]", "second spec.http[0]", "first spec.http[1]"]
    assert codes(found) == []


def test_of_two_rules_for_everything_the_older_holds() -> None:
    found = read(mesh(virtual_service("first", to("v1")), virtual_service("second", to("v2", B), to("v2"))))
    assert order(found) == ["second spec.http[0]", "first spec.http[0]"]
    assert codes(found) == [("RT0304", "second")]


def test_the_same_match_in_two_objects_is_a_conflict() -> None:
    found = read(mesh(virtual_service("first", to("v1", A)), virtual_service("second", to("v2", B, A))))
    assert order(found) == ["first spec.http[0]", "second spec.http[0]"]
    assert codes(found) == [("RT0304", "second")]


def test_a_rule_with_narrow_matches_and_one_for_everything_is_split() -> None:
    found = read(mesh(virtual_service("first", to("v1", A, "{}")), virtual_service("second", to("v2", B))))
    assert order(found) == ["first spec.http[0]", "second spec.http[0]", "first spec.http[0]"]
    assert [len(rule.matches) for rule in found.rules] == [1, 1, 1]


def test_a_single_object_keeps_its_order() -> None:
    found = read(mesh(virtual_service("only", to("v1"), to("v2", A))))
    assert order(found) == ["only spec.http[0]", "only spec.http[1]"]


def test_objects_that_the_client_does_not_see_are_not_joined() -> None:
    hidden = virtual_service("first", to("v1"), more="exportTo: ['.'],")
    seen = virtual_service("second", to("v2"))
    assert order(read(mesh(hidden, seen))) == ["first spec.http[0]"]
    assert order(read(mesh(hidden, seen, namespace="other"))) == ["second spec.http[0]"]


def test_gateways_read_the_rules_that_are_bound_to_them() -> None:
    meshed = "{match: [{gateways: [mesh]}], " + to("v2")[1:]
    world = mesh(
        virtual_service("ours", to("v1", A), more="gateways: [ingress],"),
        virtual_service("theirs", to("v1", B), more="gateways: [infra/ingress],"),
        virtual_service("both", meshed, to("v3"), more="gateways: [mesh, ingress],"),
    )
    objects = [world.view.fact("config", "VirtualService", "default", n) for n in ("ours", "theirs", "both")]

    def at(*gateways: str) -> list[str]:
        found = rules_of(world.view, objects, "shop.example", 80, gateways=frozenset(gateways))
        return order(found)

    assert at("default/ingress") == ["ours spec.http[0]", "both spec.http[1]"]
    assert at("infra/ingress") == ["theirs spec.http[0]"]
    assert at("mesh") == ["both spec.http[0]", "both spec.http[1]"]
    assert at("other/ingress") == []


def test_more_matches_than_a_host_may_have_end_in_an_error() -> None:
    half = ", ".join(f"{{uri: {{exact: /{number}}}}}" for number in range(MAX_MATCHES // 2 + 1))
    found = read(mesh(virtual_service("first", to("v1", half)), virtual_service("second", to("v2", half))))
    assert [rule.answer.status if rule.answer else 0 for rule in found.rules] == [0, 500]
    assert "RT0003" in {each.code for each in found.findings}
