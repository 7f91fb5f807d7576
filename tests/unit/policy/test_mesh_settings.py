"""MeshConfig objects over the mesh's own settings."""

from __future__ import annotations

from retia.model.mesh import MeshSettings
from retia.policy.facts import FactBase
from tests.support.documents import parse_text

OPERATOR = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: mesh, namespace: istio-system}
spec: {meshConfig: {connectTimeout: 7s, accessLogFile: /dev/stdout, accessLogEncoding: JSON}}
"""
CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "connectTimeout: 3s"}
"""


def settings_with(*texts: str) -> MeshSettings:
    base = FactBase(MeshSettings())
    for text in texts:
        base.put_objects(parse_text(text).objects)
    settings: MeshSettings = base.take_changes()[("mesh",)]
    return settings


def test_an_operator_lays_its_fields_over_the_settings() -> None:
    settings = settings_with(OPERATOR)

    assert settings.connect_timeout_s == 7.0
    assert settings.access_log.path == "/dev/stdout"
    assert settings.access_log.json
    assert settings.default_retries == 2


def test_a_config_map_goes_before_an_operator() -> None:
    assert settings_with(CONFIG_MAP, OPERATOR) == settings_with(OPERATOR, CONFIG_MAP)
    assert settings_with(CONFIG_MAP, OPERATOR).connect_timeout_s == 3.0


def test_without_the_object_the_own_settings_hold_again() -> None:
    base = FactBase(MeshSettings(connect_timeout_s=5.0))
    objects = parse_text(CONFIG_MAP).objects
    base.put_objects(objects)
    base.put_objects((), removed=[o.ref for o in objects])

    assert base.settings.connect_timeout_s == 5.0


def test_a_text_that_can_not_be_read_is_refused_where_it_stands() -> None:
    said = [str(f) for f in parse_text(CONFIG_MAP.replace("connectTimeout", "connectTimeOut")).findings]

    assert len(said) == 1
    assert "data.mesh.connectTimeOut" in said[0]
    assert parse_text(CONFIG_MAP.replace('"connectTimeout: 3s"', '"[1"')).objects == ()
