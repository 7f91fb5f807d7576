"""Raw changes to generated resources, made after everything else.

*value*: an Envoy message of the user's, as JSON; *merge*: taking over what it sets; *site*: the place in a
resource that a change is for.
"""

from retia.translate.patches.apply import added_names, patched
from retia.translate.patches.values import BadValueError, check

__all__ = ["BadValueError", "added_names", "check", "patched"]
