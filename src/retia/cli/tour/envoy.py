"""One Envoy's own state, read through the HTTP API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retia.cli.tour.errors import TourError

if TYPE_CHECKING:
    from retia.api.client import Client


class Envoy:
    """Asks one proxy's admin interface."""

    def __init__(self, client: Client, proxy: str) -> None:
        self._client = client
        self.proxy = proxy

    def ask(self, path: str) -> str:
        """A page of the admin interface; raises :class:`TourError` when Envoy refuses."""
        dump = self._client.proxy_query(self.proxy, path)
        if dump.status != 200:
            raise TourError(f"{self.proxy} answered {path} with status {dump.status}")
        return dump.body

    def stats(self) -> dict[str, int]:
        """All counters and gauges."""
        found = {}
        for line in self.ask("stats").splitlines():
            name, _, value = line.rpartition(": ")
            if value.strip().lstrip("-").isdigit():
                found[name] = int(value)
        return found

    def counted(self, ending: str, *, containing: str = "") -> int:
        """The sum of the counters whose names end and contain so."""
        return sum(v for k, v in self.stats().items() if k.endswith(ending) and containing in k)

    def identities(self) -> list[str]:
        """The URI names in the certificates that it presents."""
        pages: list[dict[str, Any]] = json.loads(self.ask("certs")).get("certificates", [])
        names = {
            name["uri"]
            for page in pages
            for certificate in page.get("cert_chain", [])
            for name in certificate.get("subject_alt_names", [])
            if "uri" in name
        }
        return sorted(names)

    def health_flags(self, cluster: str) -> dict[str, str]:
        """The health of each endpoint of a cluster: ``healthy``, or Envoy's flags."""
        found = {}
        for line in self.ask("clusters").splitlines():
            parts = line.split("::")
            if len(parts) == 4 and parts[0] == cluster and parts[2] == "health_flags":
                found[parts[1]] = parts[3].strip()
        return found
