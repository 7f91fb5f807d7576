"""Who is who in the mesh: names, certificate profiles, when to renew, and the token that lets a host in.

Five words: an *identity* is a SPIFFE name; a *trust domain* is the set of identities that one authority
vouches for; a *profile* says what a kind of certificate may do and how long it lives; *rotation* is the
decision to replace a certificate; a *join token* lets one host in, once.

Everything here is pure: the time and the random bytes are arguments, nothing is read or written.
"""
