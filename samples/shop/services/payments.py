"""Payments. An instance may be told to be unreliable: ``FAIL_EVERY=2`` answers every second charge with 503.

``POST /trouble?every=N`` changes that while it runs (0: never fails, 1: always fails).
"""

from __future__ import annotations

import itertools
import os

from plain import INSTANCE, VERSION, Reply, Request, serve

state = {"every": int(os.environ.get("FAIL_EVERY", "0"))}
count = itertools.count(1)


def answer(request: Request) -> Reply:
    who = {"service": "payments", "version": VERSION, "instance": INSTANCE}
    if request.path == "/trouble":
        if "every" in request.query:
            state["every"] = int(request.query["every"])
        return Reply({**who, **state})
    if request.path == "/charge":
        every = state["every"]
        if every and next(count) % every == 0:
            return Reply({**who, "error": "the bank is not answering"}, status=503)
        return Reply({**who, "charged": True})
    return Reply({"error": f"no page {request.path}"}, status=404)


if __name__ == "__main__":
    serve("payments", answer, 9080)
