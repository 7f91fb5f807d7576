"""The catalogue in Python: for machines with no Node.js; the same answers as ``products.js``."""

from __future__ import annotations

import os
import socket

from plain import INSTANCE, VERSION, Reply, Request, serve

PRODUCTS = (
    {"id": 1, "title": "Casting net", "text": "Thrown by hand, two fathoms wide."},
    {"id": 2, "title": "Gill net", "text": "Set at dusk, lifted at dawn."},
    {"id": 3, "title": "Seine", "text": "Needs two boats and some patience."},
)
BASE = {"service": "products", "version": VERSION, "instance": INSTANCE, "language": "python"}


def stock(number: object) -> int | None:
    """How many are in stock; ``None`` when ``inventory`` does not answer."""
    host, port = os.environ.get("INVENTORY_URL", "tcp://inventory:7070").split("://")[1].split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3) as connection:
            lines = connection.makefile("rw", newline="\n")
            lines.readline()
            lines.write(f"STOCK {number}\n")
            lines.flush()
            return int(lines.readline().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def answer(request: Request) -> Reply:
    if request.path == "/products":
        return Reply({**BASE, "products": PRODUCTS})
    for product in PRODUCTS:
        if request.path == f"/products/{product['id']}":
            return Reply({**BASE, **product, "stock": stock(product["id"])})
    return Reply({"error": f"no page {request.path}"}, status=404)


if __name__ == "__main__":
    serve("products", answer, 9080)
