"""From names to Envoy's resources: one pure function for each kind.

Five words: a *name* says which resource is wanted, and is all that Envoy says; to *build* is to make one
resource from what a view has to say; what is *listed* is sent without being asked for; *refs* are the other
resources that it refers to; its *provenance* is the objects that shaped it.

``translate.build`` and ``translate.listed`` are the way in. All names are built and parsed in ``names``.
Precedence and defaults are ``retia.policy``'s.
"""
