"""PeerAuthentication: Istio's rules."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

import pytest

from retia.model.mesh import Mode
from tests.support.documents import findings_of, parse_text, spec_of


def test_modes() -> None:
    spec = spec_of(
        "PeerAuthentication",
        """
        selector: {matchLabels: {app: db}}
        mtls: {mode: STRICT}
        portLevelMtls: {8080: {mode: DISABLE}, "9090": {}}
        """,
    )
    assert spec.mode is Mode.STRICT
    assert (spec.port_mode(8080), spec.port_mode(9090), spec.port_mode(1)) == (Mode.DISABLE, None, None)
    assert spec.labels == (("app", "db"),)


def test_an_empty_policy_leaves_the_mode_to_the_next_wider_one() -> None:
    text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\n"
    (obj,) = parse_text(text).objects
    assert obj.spec.mode is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "mtls: {mode: STRIKT}",
            "spec.mtls.mode: is STRIKT; it must be one of UNSET, DISABLE, PERMISSIVE, STRICT",
        ),
        (
            "portLevelMtls: {80: {mode: STRICT}}",
            "spec.portLevelMtls: needs a selector with labels: a policy for a namespace or the mesh has no ports",
        ),
        (
            "selector: {matchLabels: {a: b}}\nportLevelMtls: {}",
            "spec.portLevelMtls: must have at least one port",
        ),
        (
            "selector: {matchLabels: {a: b}}\nportLevelMtls: {0: {mode: STRICT}}",
            'spec.portLevelMtls["0"]: is "0"; it must be 1 or more',
        ),
        (
            "selector: {matchLabels: {a: b}}\nportLevelMtls: {web: {mode: STRICT}}",
            "spec.portLevelMtls.web: is web; it must be a whole number",
        ),
        (
            "selector: {labels: {a: b}}",
            "spec.selector.labels: is no field of WorkloadSelector; its fields are matchLabels",
        ),
        (
            "mode: STRICT",
            "spec.mode: is no field of PeerAuthentication; its fields are selector, mtls, portLevelMtls",
        ),
    ],
)
def test_a_policy_that_is_refused(text: str, said: str) -> None:
    assert findings_of("PeerAuthentication", text) == [said]
