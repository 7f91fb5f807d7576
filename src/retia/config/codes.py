"""The codes of all findings, with their levels.

The prose of each code (title, effect, remedy) stands in ``retia.analysis.catalogue``. The codes live here,
below, so that parsing, policy and translation may name them without importing upwards. A code is never used
again for something else.
"""

from __future__ import annotations

from enum import StrEnum

from retia.model.finding import Finding, Level
from retia.model.objects import ObjectRef, Origin


class Code(StrEnum):
    """``RT00xx`` text and documents, ``RT01xx`` fields, ``RT02xx`` support, ``RT03xx`` relations between
    objects, ``RT04xx`` what became of them at the proxies."""

    SYNTAX = "RT0001"
    DUPLICATE_KEY = "RT0002"
    LIMIT = "RT0003"
    NOT_AN_OBJECT = "RT0004"
    UNKNOWN_KIND = "RT0005"
    UNKNOWN_VERSION = "RT0006"
    DUPLICATE_OBJECT = "RT0007"
    METADATA = "RT0008"
    UNREADABLE = "RT0009"

    UNKNOWN_FIELD = "RT0101"
    MISSING_FIELD = "RT0102"
    WRONG_TYPE = "RT0103"
    BAD_VALUE = "RT0104"
    CONFLICT = "RT0105"
    DEPRECATED_FIELD = "RT0106"

    UNSUPPORTED_KIND = "RT0201"
    UNSUPPORTED_FIELD = "RT0202"
    SKIPPED_KIND = "RT0203"
    NO_EFFECT_FIELD = "RT0204"

    UNKNOWN_HOST = "RT0301"
    UNKNOWN_SUBSET = "RT0302"
    UNKNOWN_PORT = "RT0303"
    HOST_CONFLICT = "RT0304"
    EMPTY_SUBSET = "RT0305"
    PROTOCOL_MISMATCH = "RT0306"
    ZERO_WEIGHT = "RT0307"
    EMPTY_SELECTOR = "RT0308"
    MTLS_CONFLICT = "RT0309"
    UNREACHABLE_RULE = "RT0310"
    AMBIGUOUS_ADDRESS = "RT0311"
    DESTINATION_RULE_CONFLICT = "RT0312"
    POLICY_CONFLICT = "RT0313"
    DUPLICATE_SERVICE = "RT0314"
    UNUSUAL_WEIGHTS = "RT0315"
    NO_CERTIFICATE = "RT0316"
    OVERLAPPING_HOSTS = "RT0317"
    UNKNOWN_GATEWAY = "RT0318"
    UNKNOWN_OBJECT = "RT0319"
    ROLLOUT_PASSED_BY = "RT0320"

    NOT_BUILT = "RT0401"
    REJECTED = "RT0402"
    UNTRIED = "RT0403"

    @property
    def level(self) -> Level:
        """The level of every finding with this code."""
        if self in _WARNINGS:
            return Level.WARNING
        return Level.INFO if self in _INFOS else Level.ERROR


_WARNINGS = frozenset(
    {
        Code.DEPRECATED_FIELD,
        Code.UNTRIED,
        Code.UNKNOWN_HOST,
        Code.UNKNOWN_SUBSET,
        Code.UNKNOWN_PORT,
        Code.HOST_CONFLICT,
        Code.EMPTY_SUBSET,
        Code.PROTOCOL_MISMATCH,
        Code.EMPTY_SELECTOR,
        Code.MTLS_CONFLICT,
        Code.UNREACHABLE_RULE,
        Code.AMBIGUOUS_ADDRESS,
        Code.DESTINATION_RULE_CONFLICT,
        Code.POLICY_CONFLICT,
        Code.DUPLICATE_SERVICE,
        Code.NO_CERTIFICATE,
        Code.UNKNOWN_GATEWAY,
        Code.UNKNOWN_OBJECT,
        Code.ROLLOUT_PASSED_BY,
    }
)
_INFOS = frozenset({Code.SKIPPED_KIND, Code.NO_EFFECT_FIELD, Code.UNUSUAL_WEIGHTS, Code.OVERLAPPING_HOSTS})


_NOWHERE = Origin()


def finding(
    code: Code,
    message: str,
    *,
    ref: ObjectRef | None = None,
    field: str = "",
    origin: Origin = _NOWHERE,
    remedy: str = "",
) -> Finding:
    """A finding at its code's level."""
    return Finding(code.value, code.level, message, ref, field, origin, remedy)
