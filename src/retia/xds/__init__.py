"""Delta xDS: what each client wants, has, and is sent.

Five words: a *subscription* is what one client holds of one type; the *stream* is the state machine of one
client; its *world* is what exists for it; the *engine* (``cache``) builds resources on demand and knows which
of them a change touches; the *server* carries streams over gRPC.

``stream`` and ``cache`` are pure; only ``server`` waits.
"""
