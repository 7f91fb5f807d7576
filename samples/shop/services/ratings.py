"""Ratings in Python: for machines with no Java, and as the slow instance (``DELAY_MS``)."""

from __future__ import annotations

import os
import time

from plain import INSTANCE, VERSION, Reply, Request, serve

DELAY_S = int(os.environ.get("DELAY_MS", "0")) / 1000


def answer(request: Request) -> Reply:
    if not request.path.startswith("/ratings/"):
        return Reply({"error": f"no page {request.path}"}, status=404)
    time.sleep(DELAY_S)
    value = {"service": "ratings", "version": VERSION, "instance": INSTANCE, "language": "python"}
    return Reply({**value, "stars": [5, 4]})


if __name__ == "__main__":
    serve("ratings", answer, 9080)
