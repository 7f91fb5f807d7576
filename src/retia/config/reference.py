"""``docs/reference/configuration.md``, made from the models, the table of kinds and the list of limits.

``python -m retia.config.reference`` prints it. What a field is for stands in its docstring in the model, so
the models' source is read.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from retia.config import kinds, yaml_text
from retia.config.codes import Code
from retia.config.schema.base import Model
from retia.config.support import LIMITS, Limit

_TYPES = {
    "Text": "text",
    "Flag": "true or false",
    "Int": "whole number",
    "Number": "number",
    "int": "whole number",
    "Count": "number, 0 or more",
    "Amount": "whole number, 1 or more",
    "Positive": "whole number, 1 or more",
    "Bytes": "whole number, 1024 or more",
    "BodyBytes": "whole number, 1 to 2^30",
    "ContentLength": "whole number, 30 or more",
    "LimitedStatus": "status, 400 to 599",
    "UInt32": "number, 0 or more",
    "UInt64": "number, 0 or more",
    "Port": "port, 1 to 65535",
    "PortKey": "port",
    "Percentage": "number, 0 to 100",
    "WholePercent": "whole number, 0 to 100",
    "HttpStatus": "status, 200 to 599",
    "PositiveDuration": "duration, 1ms or more",
    "ZeroOrDuration": "duration, 0s or more",
    "HostName": "host name",
    "WildcardHost": "host name, * allowed",
    "DestinationHost": "host name, * allowed",
    "HostOrAddress": "host name (* allowed) or IP",
    "DnsLabel": "DNS label",
    "Network": "IP address or network",
    "GatewayName": "gateway",
    "Visibility": '"*", "." or namespace',
    "Regex": "regular expression (RE2)",
    "HeaderValue": "text, Envoy's %commands% allowed",
    "MatchedHeader": "header name",
    "Base64": "base64",
    "JsonObject": "object",
    "Unread": "anything",
    "LabelMap": "labels",
    "SelectorMap": "labels",
    "str": "text",
    "tuple": "list",
    "Hostname": "host name, *. allowed",
    "PreciseHostname": "host name",
    "Group": "group of an API",
    "KindName": "kind",
    "ObjectName": "object's name",
    "Namespace": "namespace",
    "SectionName": "name",
    "ControllerName": "domain and path",
    "HeaderName": "header name",
    "ProtocolName": "protocol",
    "PathText": "path",
    "Origin": "origin",
    "Options": "map of text to text",
    "AnnotationKey": "text",
    "AnnotationValue": "text",
    "LabelKey": "text",
    "LabelValue": "text",
    "Weight": "whole number, 0 to 1000000",
    "GatewayDuration": "duration such as 10s",
    "_Text": "text",
    "AbsoluteURI": "URI with its scheme",
    "ServerHost": "host name, namespace/ and * allowed",
    "SpkiHash": "SHA-256 in base64",
    "CertificateHash": "SHA-256 in hexadecimal",
    "PrivateBase64": "base64",
    "PrivateText": "text",
}

_HEAD = """# Configuration

The kinds that Retia reads, with every field. Names, defaults and meaning are Istio's (and Kubernetes' for
`Service`). An unknown field is an error. A field or value marked **not yet** is an error too: it is never
ignored. *No effect* is a remark. All errors of all documents are shown at once, each with file, line and
field path; an `apply` is all or nothing. The findings are [listed by code](findings.md).

This page is made from the program (`make docs`).
"""

_RULES = f"""## How documents are read

* Text is UTF-8, one or many YAML documents, or JSON; `kind: List` is opened. Scalars are read by YAML 1.2's
  core schema: only `true` and `false` are truth values (`yes` and `on` are text), and dates are text.
* The same key twice is an error. Aliases and `<<` are followed; tags beyond the core schema are refused.
* Limits: {yaml_text.MAX_SOURCE_CHARS // 2**20} Mi characters a text, {yaml_text.MAX_NODES:,} fields and items
  a document with its aliases expanded, {yaml_text.MAX_DEPTH} levels of nesting.
* Fields are checked first; rules between the fields of one object are checked once those fields are right.
* `null` is the same as leaving a field out.
* `status`, and what a server adds to `metadata` (`uid`, `resourceVersion`, `generation`, `creationTimestamp`,
  `managedFields`, ...), are accepted and dropped.
* A document without `metadata.namespace` is of the namespace `default`. `istio-system` is read as
  `retia-system`, the root namespace.
* An object that two documents define is taken from neither.
* Durations are Go's: `100ms`, `2.5s`, `1m`, `1h30m`; a number with no unit is refused.
* Hosts are compared in lower case and without the dot at the end; a name with no dot is a service of the
  object's own namespace.
* Regular expressions are checked for RE2's syntax; at most 1024 characters.

## Where Retia is stricter than Istio

* `port: 0` is refused where Istio reads it as absent.
* An empty match (`uri: {{}}`) is refused except in `headers`, `withoutHeaders` and `queryParams`, where it
  means "present" (and "absent" in `withoutHeaders`).
* A retry that `attempts: 0` switches off may say nothing else about retries but `backoff` and
  `retryIgnorePreviousHosts`, and an abort must have a status.
* `uriRegexRewrite.rewrite` may refer only to groups that `match` has.
* A port may be given once in `portLevelSettings`.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a kind's table."""

    path: str
    type: str
    note: str
    status: str


def fields_of(kind: str) -> tuple[Field, ...]:
    """Every field of a kind, nested ones by path; a model that occurs again is shown once."""
    seen: dict[type[Model], str] = {}
    return tuple(_fields(kinds.KINDS[kind].model, "", kind, seen))


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD, _kinds_table()]
    parts += [_kind_section(kind) for kind in kinds.KINDS.values()]
    parts += [_RULES, _others()]
    return "\n".join(parts)


def _fields(model: type[Model], prefix: str, kind: str, seen: dict[type[Model], str]) -> Iterator[Field]:
    source = _source(model)
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        annotation, note = source.get(name, ("", ""))
        inner = next(_models(info.annotation), None)
        opened = path + ("[]" if "tuple[" in annotation and inner else "")
        if "FrozenMap[" in annotation and inner:
            opened = f"{path}.*"
        status = _status(kind, path, f"{path}[]")
        is_open = inner is not None and not status.startswith("**not yet**")
        notes = ["Required."] if info.is_required() else []
        notes += [note] if note else []
        notes += [f"As in `{seen[inner]}`."] if is_open and inner in seen else []
        yield Field(path, _type(annotation, inner), " ".join(notes), status)
        if inner is not None and is_open and inner not in seen:
            seen[inner] = opened
            yield from _fields(inner, f"{opened}.", kind, seen)


def _source(model: type[Model]) -> dict[str, tuple[str, str]]:
    """Each field's annotation and docstring, as the model's source and those of its parents have them."""
    found: dict[str, tuple[str, str]] = {}
    for parent in reversed(model.__mro__):
        if issubclass(parent, Model) and parent is not Model:
            found |= _written(parent)
    return found


def _written(model: type[Model]) -> dict[str, tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, tuple[str, str]] = {}
    last = ""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            last = statement.target.id
            found[last] = (ast.unparse(statement.annotation), "")
        elif last and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            text = " ".join(str(statement.value.value).replace("``", "`").split())
            found[last] = (found[last][0], text)
            last = ""
        else:
            last = ""
    return found


def _models(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _type(annotation: str, inner: type[Model] | None) -> str:
    text = annotation.replace(" | None", "")
    if annotated := re.match(r"Annotated\[(.+), .*\]$", text):
        text = annotated[1].split(", Strict()")[0].split(", Field(")[0].split(", length(")[0]
    if listed := re.match(r"tuple\[(.+), \.\.\.\]$", text):
        return "list" if inner else f"list of {_word(listed[1])}"
    if mapped := re.match(r"FrozenMap\[(\w+), (\w+)\]$", text):
        key, value = _word(mapped[1]), "objects" if inner else _word(mapped[2])
        return f"map of {key} to {value}"
    if inner:
        return "object"
    return " or ".join(_word(part.split("[")[-1].split(",")[0]) for part in text.split(" | "))


def _word(name: str) -> str:
    choices = _CHOICES.get(name)
    return choices or _TYPES.get(name, name)


def _choices() -> dict[str, str]:
    """The values of each enum that a field may have, by the enum's name."""
    found: dict[str, str] = {}
    todo: list[Any] = [kind.model for kind in kinds.KINDS.values()]
    seen: set[Any] = set()
    while todo:
        each = todo.pop()
        if each in seen:
            continue
        seen.add(each)
        todo += get_args(each)
        if isinstance(each, type) and issubclass(each, Model):
            todo += [info.annotation for info in each.model_fields.values()]
        elif hasattr(each, "__members__"):
            found[each.__name__] = ", ".join(f"`{member}`" for member in each)
    return found


def _status(kind: str, *paths: str) -> str:
    said = [_said(limit) for limit in LIMITS[kind] if limit.field in paths]
    return "; ".join(said)


def _said(limit: Limit) -> str:
    word = {Code.NO_EFFECT_FIELD: "*no effect*", Code.DEPRECATED_FIELD: "*old name*"}.get(
        limit.code, "**not yet**"
    )
    if limit.allowed is not None:
        word = f"partly {word}"
    return f"{word}: {limit.note}" if limit.note else word


def _kinds_table() -> str:
    rows = []
    for kind in kinds.KINDS.values():
        anchor = kind.name.lower().replace(".", "")
        versions = ", ".join(kind.versions)
        rows.append(f"| [`{kind.name}`](#{anchor}) | `{kind.group or 'core'}` | {versions} |")
    return "\n".join(["| kind | group | versions |", "|---|---|---|", *rows, ""])


def _kind_section(kind: kinds.Kind) -> str:
    about = " ".join((inspect.getdoc(kind.model) or "").split("\n\n")[0].split())
    rows = [
        f"| `{row.path}` | {_cell(row.type)} | {_cell(row.note)} | {_cell(row.status)} |"
        for row in fields_of(kind.name)
    ]
    head = ["| field of `spec` | type | meaning | in this version |", "|---|---|---|---|"]
    return "\n".join([f"## {kind.name}", "", about, "", *head, *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _others() -> str:
    lines = [
        "## Kinds that are not supported yet",
        "",
        "They are errors, so that nobody believes they hold:",
        "",
    ]
    lines += [
        f"* `{group}`: {', '.join(f'`{name}`' for name in found)}" for group, found in kinds.NOT_YET.items()
    ]
    lines += [
        f"* `{kinds.OWN_GROUP}`: all kinds",
        "",
        "## Kinds that are skipped",
        "",
        "Kubernetes' own kinds that are no mesh configuration are reported as skipped: those of its groups",
        f"(`apps`, `batch`, `*.k8s.io`, ...), and of the core group {', '.join(sorted(kinds.CORE_KINDS))}.",
        "Any other kind is an error.",
        "",
    ]
    return "\n".join(lines)


_CHOICES = _choices()

if __name__ == "__main__":
    sys.stdout.write(page())
