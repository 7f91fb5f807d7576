"""The registry's memory in the store: hosts and workloads outlive the controller.

Writes are gathered for a moment and made in a thread; the newest state of each key wins. While the store
takes no writes (a full disk) they wait: the mesh goes on, and only a restart in that time would forget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog
from google.protobuf.message import DecodeError

from retia._generated import agent_pb2 as pb
from retia.aio.tasks import Wake
from retia.control.convert import Message
from retia.sources.errors import StoreError
from retia.sources.store import PutRecord, Records

HOSTS = "hosts"
WORKLOADS = "workloads"
GATHER_S = 0.25
RETRY_S = 5.0
CHUNK = 2000

_log = structlog.get_logger("retia.control.registry")


class Remembered:
    """Keeps ``Hello`` messages by host and ``Workload`` messages by host and id."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waiting: dict[tuple[str, str], bytes | None] = {}
        self._wake = Wake()

    def hosts(self) -> Iterator[Message]:
        """What is known of each host, without its workloads. Damaged records are passed over."""
        for record in self._records.records(HOSTS):
            try:
                yield pb.Hello.FromString(record.value)
            except DecodeError:
                _log.warning("a damaged record is passed over", space=HOSTS, key=record.key)

    def workloads(self) -> Iterator[tuple[str, Message]]:
        """Host id and workload."""
        for record in self._records.records(WORKLOADS):
            try:
                yield record.key.partition("/")[0], pb.Workload.FromString(record.value)
            except DecodeError:
                _log.warning("a damaged record is passed over", space=WORKLOADS, key=record.key)

    def put_host(self, hello: Message) -> None:
        known = pb.Hello(
            protocol=hello.protocol,
            host=hello.host,
            software=hello.software,
            advertise_address=hello.advertise_address,
            gateway_port=hello.gateway_port,
        )
        self._put(HOSTS, hello.host, known.SerializeToString(deterministic=True))

    def put_workload(self, host: str, workload: Message) -> None:
        self._put(WORKLOADS, f"{host}/{workload.id}", workload.SerializeToString(deterministic=True))

    def remove_host(self, host: str) -> None:
        self._put(HOSTS, host, None)

    def remove_workload(self, host: str, workload: str) -> None:
        self._put(WORKLOADS, f"{host}/{workload}", None)

    def _put(self, space: str, key: str, value: bytes | None) -> None:
        self._waiting[(space, key)] = value
        self._wake.ring()

    async def run(self) -> None:
        """Write what changes, until cancelled; what is left is written at the end."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(GATHER_S)
                while self._waiting:
                    batch = self._take()
                    if not await asyncio.to_thread(self._write, batch):
                        self._waiting = {**batch, **self._waiting}
                        await asyncio.sleep(RETRY_S)
        finally:
            self.flush()

    def flush(self) -> None:
        """Write all that waits, at once."""
        while self._waiting:
            if not self._write(self._take()):
                break

    def _take(self) -> dict[tuple[str, str], bytes | None]:
        return {key: self._waiting.pop(key) for key in list(self._waiting)[:CHUNK]}

    def _write(self, batch: dict[tuple[str, str], bytes | None]) -> bool:
        changes = [PutRecord(space, key, value) for (space, key), value in batch.items()]
        try:
            self._records.write_records(changes)
        except StoreError as error:
            _log.error("the registry can't be remembered", reason=str(error))
            return False
        return True
