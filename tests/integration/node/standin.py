"""A stand-in for Envoy: answers with the listener's port, the original destination and the caller.

Arguments: address, ports. ``none`` stands where SO_ORIGINAL_DST is not answered.
"""

import selectors
import socket
import struct
import sys

SO_ORIGINAL_DST = 80
selector = selectors.DefaultSelector()
for port in sys.argv[2:]:
    listener = socket.create_server((sys.argv[1], int(port)), backlog=128)
    selector.register(listener, selectors.EVENT_READ, int(port))


def original(connection: socket.socket) -> str:
    try:
        raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    except OSError:
        return "none"
    _, port, address = struct.unpack("!HH4s8x", raw)
    return f"{socket.inet_ntoa(address)}:{port}"


print("ready", flush=True)
while True:
    for key, _ in selector.select():
        connection, caller = key.fileobj.accept()  # type: ignore[union-attr]
        with connection:
            connection.settimeout(2)
            connection.recv(4096)
            connection.sendall(f"{key.data} {original(connection)} {caller[0]}".encode())
