"""Kubernetes ``ConfigMap``: named texts. Read for the certificates of authorities (key ``ca.crt``)."""

from __future__ import annotations

from retia.config.schema.base import FrozenMap, Model
from retia.config.schema.types import Base64, Flag, Text

CA_KEY = "ca.crt"


class ConfigMap(Model):
    """Named texts; read for the certificates of authorities."""

    data: FrozenMap[Text, Text] = ()
    binary_data: FrozenMap[Text, Base64] = ()
    immutable: Flag | None = None
