"""The counting service: decides for all proxies together whether one more request is within a limit.

It is a process and, to the proxies, an ordinary gRPC service of the mesh (``ratelimit.retia-system``). It has
no configuration: each question says the limit that it is about (:mod:`retia.model.limit`). Three words: a
*hit* is one question's share of one limit; a *counter* is what hits of one limit with equal values are
counted in; a *store* keeps counters, in memory or in Redis.
"""
