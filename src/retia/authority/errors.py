"""What the authority refuses. Every message says what, where and the next step; none contains a secret."""

from __future__ import annotations

import ssl


class AuthorityError(Exception):
    """The authority can't be opened or can't sign."""


class RequestError(AuthorityError):
    """A signing request that is malformed or doesn't prove possession of its key."""


class TokenRefused(AuthorityError):  # noqa: N818
    """A join token that doesn't let this host in."""


class PeerRefused(ssl.CertificateError):
    """The other end of a connection showed a valid certificate of the wrong party, or none."""


class PinMismatch(AuthorityError):  # noqa: N818
    """The controller's authority is not the one that made the join token."""
