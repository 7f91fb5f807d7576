"""The authority: keys, certificates, and the TLS by which hosts and controllers know each other.

Five words: the *root* is the certificate that everybody trusts; the *intermediate* signs in its name; a
*chain* is a certificate with those between it and the root; the *bundle* is all trusted roots; a *pair* is a
chain with its private key.

Only the controller holds an :class:`~retia.authority.authority.Authority`. ``requests`` and ``tls`` are used
by agents as well. Blocking calls are short (a signature takes a fraction of a millisecond).
"""
