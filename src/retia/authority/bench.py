"""How many certificates a second the authority signs on one core, for ``make bench``."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from retia.authority.authority import Authority
from retia.authority.keys import make_key
from retia.authority.requests import make_request
from retia.identity.spiffe import TrustDomain


def signatures_per_second(seconds: float = 2.0) -> float:
    """Whole workload certificates (request checked, certificate signed, chain in PEM) per second of CPU."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="retia-bench-") as home:
        authority = Authority.open(Path(home) / "authority", TrustDomain("cluster.local"), now)
        request = make_request(make_key())
        begin, count = time.process_time(), 0
        while (spent := time.process_time() - begin) < seconds:
            authority.sign_workload(request, "default", "reviews", now)
            count += 1
    return count / spent
