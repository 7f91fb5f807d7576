"""``retia get``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.output import Format, Namespace, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import Delivery, ObjectInfo

EXAMPLES = (
    "retia get virtualservices",
    "retia get vs reviews -n shop -o yaml",
    "retia get all -o json",
)


def get(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(help="A kind, its plural or short name (vs, dr, se, pa), or 'all'.")],
    name: Annotated[str | None, typer.Argument(help="One object; absent: all of the kind.")] = None,
    namespace: Namespace = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Show configuration objects, and how far they have reached the proxies.

    Without a namespace a list shows all namespaces, and one object is looked for in 'default'. With a name,
    the table also tells how many proxies hold what the object shaped.
    """
    session: Session = ctx.obj
    with session.client() as client:
        if name is not None:
            item = client.get_object(kind, namespace or "default", name)
            if output_format is Format.TABLE:
                _one(item, client.delivery(kind, item.namespace, name))
            else:
                output.emit(item.manifest, output_format)
            return
        items = client.list_objects("" if kind == "all" else kind, namespace)
    if output_format is Format.YAML:
        output.write(output.to_yaml_documents([item.manifest for item in items]))
    elif output_format is Format.JSON:
        output.emit([item.manifest for item in items], output_format)
    elif not items:
        output.say("nothing found" + (f" in namespace {namespace}" if namespace else ""))
    else:
        rows = [(i.kind, i.namespace, i.name, i.revision, _worst(i)) for i in items]
        output.table(("KIND", "NAMESPACE", "NAME", "REVISION", "FINDINGS"), rows)


def _one(item: ObjectInfo, delivery: Delivery) -> None:
    reached = delivery.acked + delivery.pending + delivery.nacked
    held = f"{delivery.acked}/{reached}" if reached else "no proxy asked yet"
    row = (item.kind, item.namespace, item.name, item.revision, held, _worst(item))
    output.table(("KIND", "NAMESPACE", "NAME", "REVISION", "ACKED", "FINDINGS"), [row])
    for proxy in delivery.proxies:
        if proxy.state != "acked":
            output.say(f"{proxy.proxy}: {proxy.resource}: {proxy.state} {proxy.error}".rstrip())
    output.show_findings(item.findings)


def _worst(item: ObjectInfo) -> str:
    for level in ("error", "warning", "info"):
        count = sum(f.level == level for f in item.findings)
        if count:
            return f"{count} {level}{'s' if count != 1 and level != 'info' else ''}"
    return ""
