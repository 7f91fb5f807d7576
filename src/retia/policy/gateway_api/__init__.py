"""Gateway API: Gateways with their listeners, and routes, read into the middle forms of the mesh.

Five words: a *listener* is one port and host name of a Gateway, possibly added by a ListenerSet; a *reason*
says why a listener, a reference or a route's parent isn't accepted, in the specification's word; a route is
*attached* to the listeners that its parents mean and that let it in; a *rank* orders the matches of all
routes by the specification's precedence; a *producer* route is the Service's owner's, a *consumer* route its
callers'.

At gateways: :data:`retia.policy.gateway_api.provider.PROVIDER`; in sidecars: :mod:`.mesh`. Everything is read
through a view, so that :mod:`retia.analysis.status` says of the same functions what they decided.
"""
