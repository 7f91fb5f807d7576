"""Raw changes to generated resources: which of them are for a proxy, in which order."""

from retia.policy.patches.resolve import Change, Context, changes, context_of, names_added

__all__ = ["Change", "Context", "changes", "context_of", "names_added"]
