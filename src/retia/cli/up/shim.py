"""The few lines that stand where a program will be, until the agent has taken the process in.

Started as ``python -I -S shim.py FD``, standard library only, so that it costs some milliseconds. It waits
for one JSON object on the socket FD, then becomes the program with ``exec``. The socket closes with ``exec``;
a failure is written to it first, as JSON. If the other side closes without a word, it just ends.
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    with control.makefile("rb") as reader:
        line = reader.readline()
    if not line:
        os._exit(0)
    order = json.loads(line)
    what = "start"
    try:
        what = f"write to the log {order['log']}"
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if log > 2:
            os.close(log)
        if order["uid"] >= 0:
            what = f"become user {order['user']}"
            os.initgroups(order["user"], order["gid"])
            os.setgid(order["gid"])
            os.setuid(order["uid"])
        what = f"enter the folder {order['cwd']}"
        os.chdir(order["cwd"])
        what = f"run {order['argv'][0]}"
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(order["argv"][0], order["argv"], order["env"])
    except (OSError, PermissionError) as error:
        control.sendall(json.dumps({"error": f"cannot {what}: {error.strerror or error}"}).encode() + b"\n")
        os._exit(127)


main()
