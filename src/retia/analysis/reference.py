"""``docs/reference/findings.md`` and ``replies.md``, made from the catalogue and the table of replies.

``python -m retia.analysis.reference`` prints the former, with the argument ``replies`` the latter.
"""

from __future__ import annotations

import sys

from retia.analysis.catalogue import CATALOGUE
from retia.config.replies import REPLIES

_HEAD = """# Findings

What Retia says about configuration. A finding has a stable code, a level, a place (file, line, object and
field path) and one sentence. `retia apply` refuses everything if one finding is an error; warnings and notes
are printed and do not change the exit status. A code is never reused for something else.

This page is made from the program (`make docs`).

| code | level | what | effect | what to do |
|---|---|---|---|---|
"""


def page() -> str:
    """The page as Markdown."""
    rows = (f"| `{e.code}` | {e.level} | {e.title} | {e.effect} | {e.remedy} |" for e in CATALOGUE.values())
    return _HEAD + "\n".join(rows) + "\n"


_REPLIES_HEAD = """# Responses that the mesh makes itself

A response that a proxy makes in place of the service carries two headers: `proxy-status` (RFC 9209), which
names the proxy, the kind of error and what Envoy knows of it, and `retia-code` with one of the codes below.
`retia why CODE` explains a code; a pasted `proxy-status` header is understood as well. A redirect or a fixed
answer that a rule asks for is what somebody wanted, and carries neither; so does every response of a service.
A code is never used for something else.

This page is made from the program (`make docs`).

| code | what | cause | what to do |
|---|---|---|---|
"""


def replies_page() -> str:
    """The page of replies as Markdown, in the order of codes."""
    rows = (f"| `{r.code}` | {r.title} | {r.cause} | {r.remedy} |" for _, r in sorted(REPLIES.items()))
    return _REPLIES_HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(replies_page() if sys.argv[1:] == ["replies"] else page())
