"""Names: DNS labels, hosts and wildcards, labels of objects.

Istio's rules throughout: labels as in RFC 1123 (letters of either case), one wildcard as the first label or
its start.
"""

from __future__ import annotations

import ipaddress
import re

_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?", re.ASCII)
_WILDCARD_LABEL = re.compile(r"\*|(?:\*-?)?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?", re.ASCII)
_QUALIFIED = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_OBJECT_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", re.ASCII)

MAX_LABEL = 63
MAX_NAME = 253
MAX_HOST = 255


def is_label(text: str) -> bool:
    """A DNS label: at most 63 letters, digits and ``-``, the ends not ``-``."""
    return len(text) <= MAX_LABEL and _LABEL.fullmatch(text) is not None


def is_object_label(text: str) -> bool:
    """A DNS label in lower case: a namespace, the name of a Service."""
    return len(text) <= MAX_LABEL and _OBJECT_LABEL.fullmatch(text) is not None


def is_object_name(text: str) -> bool:
    """A DNS subdomain in lower case, as Kubernetes demands of objects' names: labels joined by dots."""
    return 0 < len(text) <= MAX_NAME and all(_OBJECT_LABEL.fullmatch(part) for part in text.split("."))


def is_ip(text: str) -> bool:
    """An IPv4 or IPv6 address with no zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_network(text: str) -> bool:
    """An address, or an address and a prefix length (host bits may be set, as Istio allows)."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "%" not in text and _plain_prefix(text)


def _plain_prefix(text: str) -> bool:
    _, slash, length = text.partition("/")
    return not slash or length.isdecimal()


def host_rule(text: str, *, wildcard: bool) -> str | None:
    """The rule that ``text`` breaks as a host name, or ``None``."""
    if not text:
        return "must not be empty"
    if len(text) > MAX_HOST:
        return f"must have at most {MAX_HOST} characters"
    first, _, rest = text.removesuffix(".").partition(".")
    labels = rest.split(".") if rest else []
    first_ok = len(first) <= MAX_LABEL and (_WILDCARD_LABEL if wildcard else _LABEL).fullmatch(first)
    if not first_ok or not all(is_label(label) for label in labels):
        also = ", or * as its first label" if wildcard else ", with no wildcard"
        return f"must be a host name: letters, digits and - in labels of at most {MAX_LABEL}{also}"
    if (labels or [first])[-1].isdecimal():
        return "must not end in a label of digits only"
    return None


def normal_host(text: str) -> str:
    """Lower case and without the dot at the end: the form in which hosts are compared."""
    return text.lower().removesuffix(".")


def is_wildcard(host: str) -> bool:
    return host.startswith("*")


def hosts_overlap(one: str, other: str) -> bool:
    """Whether some name is meant by both; either may be a wildcard."""
    if is_wildcard(one) and is_wildcard(other):
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    if is_wildcard(one):
        return other.endswith(one[1:])
    if is_wildcard(other):
        return one.endswith(other[1:])
    return one == other


def host_covers(wide: str, narrow: str) -> bool:
    """Whether every name that ``narrow`` means is meant by ``wide``."""
    if is_wildcard(wide):
        return narrow.removeprefix("*").endswith(wide[1:])
    return wide == narrow


def label_rule(key: str, value: str) -> str | None:
    """The rule that a label breaks, or ``None``."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > MAX_NAME or not all(map(is_label, prefix.split(".")))):
        return f"has the key {key}, whose part before / must be a DNS name"
    if len(name) > MAX_LABEL or not _QUALIFIED.fullmatch(name):
        return f"has the key {key!r}; a key is at most {MAX_LABEL} letters, digits, - _ and ."
    if value and (len(value) > MAX_LABEL or not _QUALIFIED.fullmatch(value)):
        return f"has the value {value!r} for {key}; a value is at most {MAX_LABEL} letters, digits, - _ and ."
    return None
