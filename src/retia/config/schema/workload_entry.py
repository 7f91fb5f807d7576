"""``WorkloadEntry``: one endpoint that no agent registers. networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from retia.config import names
from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.types import LabelMap, Port, Text, UInt32

UNIX = "unix://"


class WorkloadEntry(Model):
    """An address with labels; also the form of a ServiceEntry's endpoints."""

    address: Annotated[Text, Field(max_length=256)] = ""
    """An IP address, a host name (DNS resolution) or ``unix:///path``."""
    ports: Annotated[FrozenMap[Text, Port], Field(max_length=128)] = ()
    """The port behind a service's port, by that port's name. Absent: the same number."""
    labels: LabelMap = ()
    network: Annotated[Text, Field(max_length=2048)] = ""
    locality: Annotated[Text, Field(max_length=2048)] = ""
    """``region/zone/subzone``."""
    weight: UInt32 = 0
    """0: 1."""
    service_account: Annotated[Text, Field(max_length=253)] = ""
    """Its identity, in the object's namespace. Empty: it is outside the mesh."""

    def problems(self) -> Iterator[Problem]:
        if not self.address and not self.network:
            yield Problem(("address",), "is missing", Code.MISSING_FIELD)
        yield from self._address_problems()
        for name, _ in self.ports:
            if not names.is_label(name):
                yield Problem(("ports", name), "must be named as a DNS label", Code.BAD_VALUE)

    def _address_problems(self) -> Iterator[Problem]:
        if self.is_unix:
            path = self.address.removeprefix(UNIX)
            if not path.startswith("@") and (not path.startswith("/") or path.endswith("/")):
                message = f"is {self.address}; it must be unix:///PATH or unix://@NAME"
                yield Problem(("address",), message, Code.BAD_VALUE)
            if self.ports:
                yield Problem(("ports",), "must not be given beside a unix:// address")
        elif self.address and not self.is_ip and names.host_rule(self.address, wildcard=False):
            message = f"is {self.address!r}; it must be an IP address, a host name or unix:// and a path"
            yield Problem(("address",), message, Code.BAD_VALUE)

    @property
    def is_ip(self) -> bool:
        return names.is_ip(self.address)

    @property
    def is_unix(self) -> bool:
        return self.address.startswith(UNIX)
