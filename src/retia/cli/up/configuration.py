"""A mesh file's configuration at the controller: applied as a whole, and taken back as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from retia.api.client import ClientError
from retia.api.schema import ApplyResult, Document
from retia.cli.proxies import describe_nack
from retia.cli.session import Session
from retia.cli.up.errors import UpError


async def apply(
    session: Session, documents: Sequence[Document], say: Callable[[str], None]
) -> frozenset[str]:
    """The objects that the documents hold, now applied; :class:`UpError` and nothing changed otherwise."""
    if not documents:
        return frozenset()
    result = await asyncio.to_thread(_apply, session, list(documents))
    errors = [f for f in result.findings if f.level == "error"]
    if errors:
        for finding in errors:
            say(f"error: {finding}")
        more = f" and {len(errors) - 1} more errors" if len(errors) > 1 else ""
        raise UpError(f"the mesh file's configuration is wrong: {errors[0]}{more}; nothing of it was applied")
    return frozenset(item.object for item in result.items if item.action != "skipped")


async def warnings(session: Session) -> list[str]:
    """What is wrong, though everything runs: findings of the whole configuration, and what proxies refused.

    Asked when the services are there: before that, every rule names a service that does not exist.
    """
    return await asyncio.to_thread(_warnings, session)


async def delete(session: Session, objects: frozenset[str]) -> None:
    """Deletes them; those that are gone already are no error."""
    if objects:
        await asyncio.to_thread(_delete, session, sorted(objects))


def _apply(session: Session, documents: list[Document]) -> ApplyResult:
    try:
        with session.client() as client:
            return client.apply(documents)
    except ClientError as error:
        raise UpError(f"cannot apply the mesh file's configuration: {error}") from error


def _warnings(session: Session) -> list[str]:
    try:
        with session.client() as client:
            found = [f"{f.level}: {f}" for f in client.status().findings if f.level != "info"]
            for proxy in client.list_proxies():
                found += [f"warning: {proxy.id}'s proxy refused {describe_nack(n)}" for n in proxy.nacks]
    except ClientError as error:
        return [f"warning: the configuration's findings are unknown: {error}"]
    return found


def _delete(session: Session, objects: list[str]) -> None:
    try:
        with session.client() as client:
            for name in objects:
                kind, namespace, rest = name.split("/", 2)
                try:
                    client.delete_object(kind, namespace, rest)
                except ClientError as error:
                    if error.code != "not_found":
                        raise
    except ClientError as error:
        raise UpError(f"cannot delete configuration that left the mesh file: {error}") from error
