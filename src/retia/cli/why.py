"""``retia why``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError
from retia.cli.output import Format, Output

if TYPE_CHECKING:
    from retia.config.replies import Reply

EXAMPLES = (
    "retia why RT0301",
    "retia why RT5003",
    "retia why 'default/web-1; error=destination_unavailable; details=\"no_healthy_upstream; UH\"'",
)

_CODE = re.compile(r"\bRT\d{4}\b", re.IGNORECASE)
_DETAILS = re.compile(r'details="((?:[^"\\]|\\.)*)"')
_FLAGS = re.compile(r"[A-Z]{2,5}(,[A-Z]{2,5})*")


_ERROR = re.compile(r"\berror=([a-z_]+)")
_ERRORS = {
    "destination_not_found": ("RT5001",),
    "destination_unavailable": ("RT5002", "RT5003"),
    "connection_refused": ("RT5004", "RT5005", "RT5006"),
    "connection_terminated": ("RT5007", "RT5008"),
    "http_response_timeout": ("RT5009", "RT5018"),
    "connection_limit_reached": ("RT5010", "RT5013"),
    "http_request_error": ("RT5012", "RT5017", "RT5020"),
    "http_request_denied": ("RT5015",),
    "dns_error": ("RT5019",),
    "http_protocol_error": ("RT5021",),
    "proxy_internal_response": ("RT5016",),
}
"""What may be meant where a gateway says the kind of error alone (RFC 9209, section 2.3)."""


def why(
    text: Annotated[
        list[str], typer.Argument(metavar="CODE|HEADER", help="A code, or what a Proxy-Status header says.")
    ],
    output_format: Output = Format.TABLE,
) -> None:
    """Explain a code: of a finding, or of a response that a proxy made itself.

    Such responses carry the code in the header 'retia-code', and 'Proxy-Status' (RFC 9209); either can be
    pasted whole. Needs no running mesh.
    """
    found = _explanations(" ".join(text))
    if output_format is not Format.TABLE:
        output.emit(found if len(found) > 1 else found[0], output_format)
        return
    blocks = []
    for each in found:
        lines = [f"{each['code']}: {each['title']}"]
        lines += [f"  {key}: {value}" for key, value in each.items() if key not in ("code", "title")]
        blocks.append("\n".join(lines) + "\n")
    output.write("\n".join(blocks))


def _explanations(text: str) -> list[dict[str, str]]:
    codes = list(dict.fromkeys(code.upper() for code in _CODE.findall(text)))
    said = _of_header(text)
    found = [_of_code(code) for code in codes] + _narrower(said, codes) if codes else said
    if not found:
        raise CliError(
            f"{text!r} holds no code (RT and four digits) and no Proxy-Status that a proxy of this mesh makes"
        )
    return found


def _narrower(said: list[dict[str, str]], codes: list[str]) -> list[dict[str, str]]:
    """Of what the header says, that which a proxy doesn't tell from a wider code."""
    from retia.config.replies import REPLIES

    return [each for each in said if each["code"] not in codes and REPLIES[each["code"]].within]


def _of_code(code: str) -> dict[str, str]:
    from retia.analysis.catalogue import CATALOGUE
    from retia.config.replies import REPLIES

    if code in REPLIES:
        return _reply(REPLIES[code])
    if code in CATALOGUE:
        entry = CATALOGUE[code]
        return {
            "code": code,
            "title": entry.title,
            "level": str(entry.level),
            "effect": entry.effect,
            "remedy": entry.remedy,
        }
    raise CliError(f"there is no code {code}; docs/reference/findings.md and replies.md list them")


def _reply(reply: Reply) -> dict[str, str]:
    return {"code": reply.code, "title": reply.title, "cause": reply.cause, "remedy": reply.remedy}


def _of_header(text: str) -> list[dict[str, str]]:
    """By what Envoy says in ``details``: its own words, then its response flags."""
    from retia.config import replies

    found: dict[str, dict[str, str]] = {}
    for details in _DETAILS.findall(text) or [text.partition(":")[2] or text]:
        said, _, flags = details.rpartition("; ")
        reply = replies.of(flags.strip(), said.strip() or details.strip())
        if reply is None and _FLAGS.fullmatch(details.strip()):
            reply = replies.of(details.strip(), "")
        if reply is not None:
            found.setdefault(reply.code, _reply(reply) | {"said": details.strip()})
    if not found:
        codes = [code for error in _ERROR.findall(text) for code in _ERRORS.get(error, ())]
        return [_of_code(code) for code in dict.fromkeys(codes)]
    return list(found.values())
