"""From configuration objects to small typed answers: references, defaults and precedence.

Five words: a *query* is a pure function ``f(view, key)`` whose result is remembered; a *destination* is a
port of a service, or one endpoint behind it; a *rule* is one entry of a ``VirtualService`` with every default
filled in; a *traffic policy* is what holds for one (host, port, subset); a *mode* is how an inbound port
takes mutual TLS.

Nothing here knows Envoy's messages; ``retia.translate`` knows nothing of precedence.
"""
