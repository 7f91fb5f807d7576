"""A server of a few lines: says one text to every caller. Arguments: address, port, text, options as JSON."""

import json
import socket
import sys

address, port, text, options = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM) as listener:
    if "v6only" in options:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options["v6only"]))
    if "reuseport" in options:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    name = listener.getsockname()
    print("ready", name[0], name[1], flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(2)
            connection.recv(4096)
            connection.sendall(text.encode())
