"""The stock, over plain TCP: the server speaks first (a greeting), then one line of answer per line asked.

``STOCK id`` -> ``OK n``; ``TAKE id n`` -> ``OK rest`` or ``NO rest``; ``QUIT`` -> ``BYE``.
"""

from __future__ import annotations

import os
import signal
import socketserver
import sys
import threading

STOCK = {"1": 12, "2": 7, "3": 2}
LOCK = threading.Lock()


def reply(line: str) -> str:
    """The answer to one line."""
    match line.split():
        case ["STOCK", item] if item in STOCK:
            return f"OK {STOCK[item]}"
        case ["TAKE", item, number] if item in STOCK and number.isdigit():
            with LOCK:
                enough = STOCK[item] >= int(number)
                STOCK[item] -= int(number) if enough else 0
                return f"{'OK' if enough else 'NO'} {STOCK[item]}"
        case ["QUIT"]:
            return "BYE"
    return "WHAT?"


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"inventory {os.environ.get('VERSION', 'v1')} ready\n".encode())
        for line in self.rfile:
            text = reply(line.decode(errors="replace").strip())
            self.wfile.write(f"{text}\n".encode())
            if text == "BYE":
                return


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    port = int(os.environ.get("PORT") or 7070)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"inventory listens on port {port}", flush=True)
    _Listener((os.environ.get("HOST", "0.0.0.0"), port), _Connection).serve_forever()
