"""Where configuration comes from and where the controller remembers things.

Five words: an *object* is one configuration document under its kind, namespace and name; a *revision* is a
number that grows with every write; a *batch* is written as a whole or not at all; a *watch* tells what
changed since a revision; a *record* is a small value under a key, for what the controller itself must
remember (tokens, virtual addresses, learned names).

Everything here is synchronous and safe to call from several threads; a write of the SQLite store waits for
the disk, so an event loop calls it through ``asyncio.to_thread``.
"""
