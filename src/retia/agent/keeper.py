"""The keeper: the small process above everything that must outlive the agent's worker.

The agent is two processes. The *worker* does the work and may crash, be killed or be upgraded at any time.
The *keeper* parents the Envoys and the worker and holds the listening sockets, so that nothing is lost
meanwhile: Envoys run on, connections and DNS queries wait in the sockets' queues. To have next to nothing
that can fail in it, the keeper uses the standard library only, has no thread, and decides nothing: it opens
what it is told to open and starts what it is told to start.

The worker speaks to it over ``run/keeper.sock``: a sequenced-packet socket, one line of JSON a packet, file
descriptors beside it. Requests carry ``id`` and ``op``; replies carry the same ``id`` and either ``ok`` or
``error``; packets with ``event`` come unasked (``start``, ``exit``, ``shutdown``).

Processes with ``restart`` are started again when they end, at once the first time and then with a pause that
doubles up to 10 s; after a run of 30 s it begins with none. Should the keeper itself be killed, the Envoys
live; the next keeper finds them by what is written in ``run/keeper.json`` (process id, start time and
executable must all agree) and adopts them. The worker lives on too, and goes on answering: when the next
keeper listens, it gives it the sockets (``give``) and ends, and only then is the next worker started. So no
question is lost, and two workers never meet. A worker that does not end in time is killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time

MAX_PACKET_BYTES = 160 * 1024
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0
STEADY_S = 30.0
WORKER_SHUTDOWN_S = 20.0
STOP_S = 5.0
HAND_OVER_S = 3.0
"""How long a worker of the keeper before may take to hand its sockets over and end."""
STATUS_WRONG_SETTINGS = 78
"""A worker that exits with this (``EX_CONFIG`` of sysexits.h) is not started again: the keeper ends too."""
WORKER = "worker"
FORMER_WORKER = "former worker"

Json = dict[str, object]


class KeeperError(Exception):
    """A request that could not be carried out, or a keeper that can't start; the text is for people."""


class Spec:
    """What to run."""

    __slots__ = ("argv", "cgroup", "cwd", "env", "gid", "groups", "log", "name", "restart", "uid")

    def __init__(
        self,
        name: str,
        argv: list[str],
        env: dict[str, str] | None = None,
        cgroup: str = "",
        log: str = "",
        restart: bool = False,
        cwd: str = "",
        uid: int = -1,
        gid: int = -1,
        groups: list[int] | None = None,
    ) -> None:
        self.name = name
        self.argv = argv
        self.env = env
        """The whole environment; ``None``: the keeper's own."""
        self.cgroup = cgroup
        """The ``cgroup.procs`` file to enter before the program starts; empty: none."""
        self.log = log
        """The file that gets stdout and stderr; empty: the keeper's own."""
        self.restart = restart
        self.cwd = cwd
        self.uid = uid
        self.gid = gid
        self.groups = groups

    def to_json(self) -> Json:
        return {key: getattr(self, key) for key in self.__slots__}

    @classmethod
    def from_json(cls, value: object) -> Spec:
        """Raises :class:`KeeperError` on anything that is not a spec."""
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise KeeperError("a process needs a name")
        argv = value.get("argv")
        if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
            raise KeeperError(f"{value['name']}: argv must be a list of strings")
        unknown = set(value) - set(cls.__slots__)
        if unknown:
            raise KeeperError(f"{value['name']}: unknown fields {', '.join(sorted(unknown))}")
        return cls(**value)


class Process:
    """A running process, or one that will be started again at ``due``."""

    __slots__ = (
        "child",
        "due",
        "exe",
        "failures",
        "kill_at",
        "pid",
        "pidfd",
        "restarts",
        "spec",
        "stamp",
        "started",
    )

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.pid = 0
        self.pidfd = -1
        self.child = True
        self.started = 0.0
        self.stamp = 0
        """Start time in clock ticks since boot, from ``/proc/<pid>/stat``."""
        self.exe = ""
        self.restarts = 0
        self.failures = 0
        self.due = 0.0
        """When to start it again; 0: it runs."""
        self.kill_at = 0.0
        """When to kill it; 0: nobody asked it to end."""


def start_stamp(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0: there is no such process, or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def executable(pid: int) -> str:
    """The program that a process runs; empty: unknown."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115
    except OSError:
        return ""


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def spawn(spec: Spec) -> int:
    """Start a program in its own session and return its process id; :class:`KeeperError` if it can't start.

    Everything that can fail happens in the child, which reports it over a pipe that ``exec`` closes.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(spec, writer)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:  # noqa: PTH123
        message = pipe.read(4096)
    if message:
        os.waitpid(pid, 0)
        raise KeeperError(f"{spec.name}: {message.decode(errors='replace')}")
    return pid


def _become(spec: Spec, report: int) -> None:
    """In the child: never returns."""
    doing = "can't start"
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if spec.cgroup:
            doing = f"can't enter the cgroup {spec.cgroup}"
            _enter_cgroup(spec.cgroup)
        _redirect(spec.log)
        if spec.groups is not None and os.geteuid() == 0:
            os.setgroups(spec.groups)
        if spec.gid >= 0:
            doing = f"can't become group {spec.gid}"
            os.setgid(spec.gid)
        if spec.uid >= 0:
            doing = f"can't become user {spec.uid}"
            os.setuid(spec.uid)
        if spec.cwd:
            doing = f"can't enter {spec.cwd}"
            os.chdir(spec.cwd)
        doing = f"can't execute {spec.argv[0]}"
        environment = dict(os.environ) if spec.env is None else spec.env
        os.execvpe(spec.argv[0], spec.argv, environment)
    except OSError as error:
        os.write(report, f"{doing}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _enter_cgroup(path: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("0")


def _redirect(log: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if log:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)


def pause_s(failures: int) -> float:
    """How long to wait before the start after ``failures`` ends in a row."""
    return 0.0 if failures <= 1 else min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 2))


class Sockets:
    """The sockets held for the worker, by key."""

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}
        self._paths: dict[str, str] = {}

    def open(self, key: str, kind: str, address: str, port: int, mode: int) -> socket.socket:
        """The socket of that key, opened if need be. ``kind``: ``unix``, ``tcp``, ``udp`` or ``lock``."""
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = self._make(key, kind, address, port, mode)
        return held

    def _make(self, key: str, kind: str, address: str, port: int, mode: int) -> socket.socket:
        try:
            if kind == "unix":
                return self._listen_unix(key, address, mode)
            if kind == "lock":
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                return _bound(sock, "\0" + address)
            if kind in ("tcp", "udp"):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                stream = kind == "tcp"
                sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
                if stream:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _bound(sock, (address, port))
                if stream:
                    sock.listen(128)
                return sock
        except OSError as error:
            where = f"{address}:{port}" if port else address
            raise KeeperError(f"can't open {kind} socket {where}: {error.strerror or error}") from error
        raise KeeperError(f"{kind} is not a kind of socket")

    def _listen_unix(self, key: str, path: str, mode: int) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            _bound(sock, path)
        finally:
            os.umask(mask)
        if mode >= 0:
            os.chmod(path, mode)  # noqa: PTH101
        sock.listen(256)
        self._paths[key] = path
        return sock

    def take(self, key: str, sock: socket.socket) -> None:
        """Hold a socket that a keeper before opened; one that is held already stays."""
        if key in self._held:
            sock.close()
            return
        self._held[key] = sock
        kind, _, address = key.partition(":")
        if kind == "unix":
            self._paths[key] = address

    def close(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            held.close()
        path = self._paths.pop(key, "")
        if path:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108

    def keys(self) -> list[str]:
        return sorted(self._held)

    def close_all(self) -> None:
        for key in self.keys():
            self.close(key)


def _bound(sock: socket.socket, address: object) -> socket.socket:
    try:
        sock.bind(address)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    return sock


class Keeper:
    """The loop. ``worker`` is the worker's command line."""

    def __init__(self, run: str, worker: list[str]) -> None:
        self._run = run
        self._worker = worker
        self._selector = selectors.DefaultSelector()
        self._sockets = Sockets()
        self._processes: dict[str, Process] = {}
        self._clients: set[socket.socket] = set()
        self._stopping_since = 0.0
        self._status = 0
        self._told_to_stop = False

    def serve(self) -> int:
        """Run until all has ended; returns the exit status."""
        wake_reader, wake_writer = os.pipe()
        for end in (wake_reader, wake_writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(wake_reader, selectors.EVENT_READ, None)
        listener = self._listen()
        self._adopt()
        if FORMER_WORKER not in self._processes:
            self._start_worker()
        while not self._finished():
            for key, _ in self._selector.select(self._wait_s()):
                self._ready(key, listener, wake_reader)
            self._tick()
        listener.close()
        self._sockets.close_all()
        for name in ("keeper.sock", "keeper.json"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._run, name))  # noqa: PTH108, PTH118
        return self._status

    def _start_worker(self) -> None:
        if self._worker:
            self._start(Process(Spec(WORKER, self._worker, restart=True)))
            self._save()

    def _listen(self) -> socket.socket:
        path = os.path.join(self._run, "keeper.sock")  # noqa: PTH118
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        except OSError as error:
            raise KeeperError(f"can't open {path}: {error.strerror or error}") from error
        finally:
            os.umask(mask)
        listener.listen(8)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)
        return listener

    def _on_signal(self, *_: object) -> None:
        self._told_to_stop = True

    def _ready(self, key: selectors.SelectorKey, listener: socket.socket, wake: int) -> None:
        source = key.fileobj
        if source is listener:
            self._accept(listener)
        elif source == wake:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        elif isinstance(source, socket.socket):
            self._receive(source)
        elif isinstance(key.data, Process):
            self._ended(key.data)

    # Clients

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET_BYTES * 2)
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ, None)
        if self._told_to_stop:
            self._send(client, {"event": "shutdown"})

    def _drop(self, client: socket.socket) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._selector.unregister(client)
            client.close()

    def _receive(self, client: socket.socket) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(client, MAX_PACKET_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        given = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for sock in given:
            sock.set_inheritable(False)
        try:
            self._answer(client, packet, given)
        finally:
            for sock in given:
                sock.close()

    def _answer(self, client: socket.socket, packet: bytes, given: list[socket.socket]) -> None:
        """Carry out a request. What is kept of ``given`` is taken out of it."""
        if not packet:
            self._drop(client)
            return
        try:
            request = json.loads(packet)
            number = request["id"]
        except (ValueError, KeyError, TypeError):
            self._drop(client)
            return
        try:
            result, held = self._do(request, given)
        except KeeperError as error:
            self._send(client, {"id": number, "error": str(error)})
        except (KeyError, TypeError, ValueError) as error:
            self._send(client, {"id": number, "error": f"{type(error).__name__}: {error}"})
        else:
            self._send(client, {"id": number, "ok": result}, held)

    def _send(self, client: socket.socket, message: Json, held: socket.socket | None = None) -> None:
        try:
            _send_packet(client, message, [] if held is None else [held.fileno()])
        except OSError:
            # A client that does not read: it will have to connect again and ask for the list.
            self._drop(client)

    def _broadcast(self, message: Json) -> None:
        for client in list(self._clients):
            self._send(client, message)

    def _do(self, request: Json, given: list[socket.socket]) -> tuple[Json, socket.socket | None]:
        op = request["op"]
        if op == "open":
            held = self._sockets.open(
                _text(request, "key"),
                _text(request, "kind"),
                _text(request, "address"),
                _number(request, "port"),
                _number(request, "mode", -1),
            )
            return {}, held
        if op == "give":
            if not given:
                raise KeeperError("no socket was given")
            self._sockets.take(_text(request, "key"), given.pop())
            return {}, None
        if op == "close":
            self._sockets.close(_text(request, "key"))
            return {}, None
        if op == "spawn":
            return self._spawn(Spec.from_json(request["spec"])), None
        if op == "stop":
            self._stop(_text(request, "name"), _seconds(request, "grace_s", STOP_S))
            return {}, None
        if op == "list":
            return {"processes": self._list(), "sockets": self._sockets.keys(), "pid": os.getpid()}, None
        if op == "shutdown":
            self._told_to_stop = True
            return {}, None
        raise KeeperError(f"{op} is not an operation")

    # Processes

    def _spawn(self, spec: Spec) -> Json:
        old = self._processes.get(spec.name)
        if old is not None and not old.due:
            raise KeeperError(f"{spec.name} runs already as process {old.pid}")
        if self._told_to_stop:
            raise KeeperError("the agent is ending")
        process = Process(spec)
        self._start(process)
        self._save()
        return {"pid": process.pid}

    def _start(self, process: Process) -> None:
        pid = spawn(process.spec)
        process.pid = pid
        process.child = True
        process.started = time.monotonic()
        process.due = 0.0
        process.stamp = start_stamp(pid)
        process.exe = executable(pid)
        self._watch(process)
        self._broadcast(
            {"event": "start", "name": process.spec.name, "pid": pid, "restarts": process.restarts}
        )

    def _watch(self, process: Process) -> None:
        process.pidfd = os.pidfd_open(process.pid)
        self._processes[process.spec.name] = process
        self._selector.register(process.pidfd, selectors.EVENT_READ, process)

    def _stop(self, name: str, grace_s: float) -> None:
        process = self._processes.get(name)
        if process is None:
            raise KeeperError(f"there is no process {name}")
        if process.due:
            del self._processes[name]
            self._broadcast({"event": "exit", "name": name, "pid": 0, "status": None, "restarting": False})
            self._save()
            return
        deadline = time.monotonic() + grace_s
        process.kill_at = min(process.kill_at or deadline, deadline)
        self._signal(process, signal.SIGTERM)

    def _signal(self, process: Process, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(process.pidfd, number)

    def _ended(self, process: Process) -> None:
        status = self._collect(process)
        self._selector.unregister(process.pidfd)
        os.close(process.pidfd)
        process.pidfd = -1
        name = process.spec.name
        again = process.spec.restart and not process.kill_at and not self._told_to_stop
        if name == WORKER and status in (0, STATUS_WRONG_SETTINGS):
            self._status = status
            self._told_to_stop = True
            again = False
        pid, process.pid = process.pid, 0
        if again:
            now = time.monotonic()
            process.failures = 1 if now - process.started >= STEADY_S else process.failures + 1
            process.due = now + pause_s(process.failures)
        else:
            del self._processes[name]
        event: Json = {"event": "exit", "name": name, "pid": pid, "status": status, "restarting": again}
        self._broadcast(event)
        self._save()
        if name == FORMER_WORKER and not self._told_to_stop:
            self._start_worker()

    def _collect(self, process: Process) -> int | None:
        """Exit status, negative for a signal; ``None`` for an adopted process, which has another parent."""
        if not process.child:
            return None
        try:
            _, status = os.waitpid(process.pid, 0)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status)

    def _list(self) -> list[Json]:
        return [
            {"name": p.spec.name, "pid": p.pid, "restarts": p.restarts, "stopping": bool(p.kill_at)}
            for p in self._processes.values()
        ]

    # Time

    def _wait_s(self) -> float | None:
        times = [p.due or p.kill_at for p in self._processes.values() if p.due or p.kill_at]
        if self._stopping_since:
            times.append(time.monotonic() + 0.1)
        if self._told_to_stop and not self._stopping_since:
            return 0.0
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _tick(self) -> None:
        now = time.monotonic()
        if self._told_to_stop:
            self._go_on_stopping(now)
        for process in list(self._processes.values()):
            if process.due and process.due <= now and not self._told_to_stop:
                self._restart(process, now)
            elif process.kill_at and process.kill_at <= now:
                self._signal(process, signal.SIGKILL)
                process.kill_at = now + STOP_S

    def _restart(self, process: Process, now: float) -> None:
        process.restarts += 1
        try:
            self._start(process)
        except KeeperError as error:
            process.failures += 1
            process.due = now + max(FIRST_PAUSE_S, pause_s(process.failures))
            _say(str(error))
        self._save()

    def _go_on_stopping(self, now: float) -> None:
        """First the worker, which takes leave of the controller and ends the proxies; then what is left."""
        if not self._stopping_since:
            self._stopping_since = now
            for name in [n for n, p in self._processes.items() if p.due]:
                del self._processes[name]
            self._broadcast({"event": "shutdown"})
        worker = self._processes.get(WORKER)
        if worker is not None and not self._clients:
            # Nobody has heard of the end: it hangs, or has not begun.
            self._signal(worker, signal.SIGTERM)
        if worker is not None and not worker.kill_at and now - self._stopping_since > WORKER_SHUTDOWN_S:
            worker.kill_at = now
        if worker is None:
            for process in self._processes.values():
                if not process.kill_at:
                    process.kill_at = now + STOP_S
                    self._signal(process, signal.SIGTERM)

    def _finished(self) -> bool:
        return bool(self._stopping_since) and not self._processes

    # What the next keeper needs

    def _save(self) -> None:
        processes = [
            {"spec": p.spec.to_json(), "pid": p.pid, "stamp": p.stamp, "exe": p.exe, "restarts": p.restarts}
            for p in self._processes.values()
            if p.spec.name not in (WORKER, FORMER_WORKER)
        ]
        worker = self._processes.get(WORKER) or self._processes.get(FORMER_WORKER)
        record: Json = {"boot": boot_id(), "processes": processes}
        if worker is not None and worker.pid:
            record["worker"] = {"pid": worker.pid, "stamp": worker.stamp, "exe": worker.exe}
        path = os.path.join(self._run, "keeper.json")  # noqa: PTH118
        try:
            with open(path + ".new", "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(record, file)
            os.replace(path + ".new", path)  # noqa: PTH105
        except OSError as error:
            _say(f"can't write {path}: {error.strerror}; should this process be killed, Envoys would be lost")

    def _adopt(self) -> None:
        for process in read_record(self._run):
            if is_same(process.pid, process.stamp, process.exe):
                process.child = False
                process.started = time.monotonic()
                if process.spec.name == FORMER_WORKER:
                    process.kill_at = process.started + HAND_OVER_S
                self._watch(process)
            elif process.spec.restart:
                process.pid = 0
                process.due = time.monotonic()
                self._processes[process.spec.name] = process


def read_record(run: str) -> list[Process]:
    """What a keeper left behind; nothing if it is unreadable, or from before the last boot."""
    try:
        with open(os.path.join(run, "keeper.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            record = json.load(file)
        if record["boot"] != boot_id():
            return []
        return [_recorded(entry) for entry in _entries(record)]
    except (OSError, ValueError, KeyError, TypeError, KeeperError):
        return []


def _entries(record: Json) -> list[Json]:
    processes = record["processes"]
    worker = record.get("worker")
    if not isinstance(processes, list):
        raise KeeperError("a list of processes is needed")
    if isinstance(worker, dict):
        return [{"spec": Spec(FORMER_WORKER, [WORKER]).to_json(), "restarts": 0, **worker}, *processes]
    return processes


def _recorded(entry: Json) -> Process:
    process = Process(Spec.from_json(entry["spec"]))
    process.pid = _number(entry, "pid")
    process.stamp = _number(entry, "stamp")
    process.exe = _text(entry, "exe")
    process.restarts = _number(entry, "restarts")
    return process


def is_same(pid: int, stamp: int, exe: str) -> bool:
    """Whether the process with that id is still the one that was written down."""
    if pid <= 0 or stamp <= 0:
        return False
    return start_stamp(pid) == stamp and executable(pid) == exe


def sweep(run: str) -> int:
    """Kill what a dead keeper left behind, wait for its end, and return how many processes that was.

    Only for a home whose keeper is dead: take the lock first (:func:`lock`).
    """
    left = [p for p in read_record(run) if is_same(p.pid, p.stamp, p.exe)]
    for process in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + STOP_S
    # By the stamp alone: a process that is ending loses its executable some time before it is a zombie.
    while any(start_stamp(p.pid) == p.stamp for p in left) and time.monotonic() < deadline:
        time.sleep(0.005)
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(run, "keeper.json"))  # noqa: PTH108, PTH118
    return len(left)


def lock(run: str) -> int:
    """Make sure that this is the only keeper of its home; the lock lasts as long as the descriptor."""
    path = os.path.join(run, "keeper.lock")  # noqa: PTH118
    try:
        os.makedirs(run, mode=0o700, exist_ok=True)  # noqa: PTH103
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeeperError(f"can't write to {run}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = os.read(handle, 32).decode(errors="replace").strip()
        raise KeeperError(f"an agent runs already in {os.path.dirname(run)} (process {other})") from error  # noqa: PTH120
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _send_packet(client: socket.socket, message: Json, descriptors: list[int]) -> None:
    data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(data) > MAX_PACKET_BYTES:
        raise OSError(errno.EMSGSIZE, "overlong reply")
    socket.send_fds(client, [data], descriptors)


def _text(request: Json, key: str) -> str:
    value = request.get(key, "")
    if not isinstance(value, str):
        raise KeeperError(f"{key} must be a string")
    return value


def _number(request: Json, key: str, default: int = 0) -> int:
    value = request.get(key, default)
    if not isinstance(value, int):
        raise KeeperError(f"{key} must be a whole number")
    return value


def _seconds(request: Json, key: str, default: float) -> float:
    value = request.get(key, default)
    if not isinstance(value, int | float):
        raise KeeperError(f"{key} must be a number")
    return float(value)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"retia keeper: {message}\n".encode())


def main(arguments: list[str]) -> int:
    """``keeper RUN_FOLDER [WORKER ARGUMENT...]``, or ``keeper --sweep RUN_FOLDER``."""
    sweeping = arguments[:1] == ["--sweep"]
    if sweeping:
        arguments = arguments[1:]
    if not arguments:
        _say("usage: python -m retia.agent.keeper [--sweep] RUN_FOLDER [WORKER ARGUMENT...]")
        return 64
    try:
        handle = lock(arguments[0])
        if sweeping:
            sweep(arguments[0])
            return 0
        status = Keeper(arguments[0], arguments[1:]).serve()
    except KeeperError as error:
        _say(str(error))
        return 1
    os.close(handle)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
