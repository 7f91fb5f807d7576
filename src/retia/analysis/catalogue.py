"""The catalogue: every code, with what it means for the mesh and what to do.

Levels stand with the codes (:mod:`retia.config.codes`). ``docs/reference/findings.md`` is made from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from retia.config.codes import Code
from retia.model.finding import Level


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of finding."""

    code: Code
    title: str
    effect: str
    """One sentence: what it means for the mesh."""
    remedy: str

    @property
    def level(self) -> Level:
        return self.code.level


_ENTRIES = (
    Entry(
        Code.SYNTAX,
        "Not YAML",
        "The text cannot be read from this line on; documents before it are read.",
        "Correct the text at the line given; most often it is indentation or a missing quote.",
    ),
    Entry(
        Code.DUPLICATE_KEY,
        "A key given twice",
        "The document is refused, because one of the two values would be lost silently.",
        "Keep one of the two.",
    ),
    Entry(
        Code.LIMIT,
        "Too large",
        "The document or text is refused: its size, depth or number of fields is over a limit.",
        "Split the text into several, or write out what aliases (*) repeat.",
    ),
    Entry(
        Code.NOT_AN_OBJECT,
        "Not an object",
        "The document is refused: it has no apiVersion and kind.",
        "Give apiVersion and kind, or take the document out of the configuration.",
    ),
    Entry(
        Code.UNKNOWN_KIND,
        "Unknown kind",
        "The document is refused: its kind is neither mesh configuration nor one of Kubernetes'.",
        "Correct apiVersion and kind, or take the document out of the configuration.",
    ),
    Entry(
        Code.UNKNOWN_VERSION,
        "Unknown version",
        "The document is refused: the kind is known, but not in this version.",
        "Use one of the versions that the message names.",
    ),
    Entry(
        Code.DUPLICATE_OBJECT,
        "Object defined twice",
        "Neither definition is taken, so that the order of documents does not matter.",
        "Delete one, or give it another name or namespace.",
    ),
    Entry(
        Code.METADATA,
        "Bad name or namespace",
        "The document is refused: Kubernetes would refuse the name too.",
        "Use lower-case letters, digits and -, beginning and ending with a letter or digit.",
    ),
    Entry(
        Code.UNREADABLE,
        "Text that cannot be read",
        "Nothing of the text is read.",
        "Save it as UTF-8.",
    ),
    Entry(
        Code.UNKNOWN_FIELD,
        "Unknown field",
        "The document is refused, because the field would have no effect.",
        "Correct the name (the message may name the field meant) or the indentation, or delete it.",
    ),
    Entry(Code.MISSING_FIELD, "Missing field", "The document is refused.", "Give the field."),
    Entry(
        Code.WRONG_TYPE,
        "Wrong type",
        "The document is refused.",
        "Write the type that the message names; texts that look like numbers or true need quotes.",
    ),
    Entry(
        Code.BAD_VALUE,
        "Value not allowed",
        "The document is refused.",
        "Use a value that the rule in the message allows.",
    ),
    Entry(
        Code.CONFLICT,
        "Fields that exclude one another",
        "The document is refused, because only one of the fields could be obeyed.",
        "Keep one of them.",
    ),
    Entry(
        Code.DEPRECATED_FIELD,
        "Old name",
        "The field is obeyed, but Istio has replaced it.",
        "Use the new name that the message gives.",
    ),
    Entry(
        Code.UNSUPPORTED_KIND,
        "Kind not supported yet",
        "The document is refused, because what it asks for would not be done.",
        "Take it out of the configuration, or wait for a version that supports it.",
    ),
    Entry(
        Code.UNSUPPORTED_FIELD,
        "Field not supported yet",
        "The document is refused, because what the field asks for would not be done.",
        "Leave the field out; the reference says what is supported.",
    ),
    Entry(
        Code.SKIPPED_KIND,
        "Skipped",
        "The document is no mesh configuration and is left alone.",
        "Nothing needs to be done.",
    ),
    Entry(
        Code.NO_EFFECT_FIELD,
        "Field without effect",
        "The object is used, but this field does nothing here.",
        "Nothing needs to be done; delete the field to be rid of the message.",
    ),
    Entry(
        Code.UNKNOWN_HOST,
        "Host that does not exist",
        "What the object says about that host has no effect; requests that a rule sends there get an error "
        "(503; of a Gateway API route 500).",
        "Correct the name (a short one means a service of the object's own namespace), or start the service.",
    ),
    Entry(
        Code.UNKNOWN_SUBSET,
        "Subset that does not exist",
        "Requests sent to the subset get 503.",
        "Define the subset in a DestinationRule for the host, or correct its name.",
    ),
    Entry(
        Code.UNKNOWN_PORT,
        "Port that does not exist",
        "Requests sent there get 503; a match on it never holds.",
        "Use one of the service's ports.",
    ),
    Entry(
        Code.HOST_CONFLICT,
        "Two VirtualServices for one host",
        "The older object's rules come first and take all of this rule's requests; it is never reached.",
        "Make the matches differ, or write the rules for one host into one VirtualService.",
    ),
    Entry(
        Code.EMPTY_SUBSET,
        "Subset without a workload",
        "Requests sent to the subset get 503.",
        "Start a workload with the subset's labels, or correct the labels.",
    ),
    Entry(
        Code.PROTOCOL_MISMATCH,
        "HTTP rule for a port without HTTP",
        "The rule has no effect: connections to the port are passed on unopened.",
        "Declare the port's protocol as HTTP, or delete the rule.",
    ),
    Entry(
        Code.ZERO_WEIGHT,
        "Weights that add up to nothing",
        "The document is refused: requests would have nowhere to go.",
        "Give at least one destination a positive weight.",
    ),
    Entry(
        Code.EMPTY_SELECTOR,
        "Selects nothing",
        "The policy has no effect now.",
        "Correct the labels, or start a workload that has them.",
    ),
    Entry(
        Code.MTLS_CONFLICT,
        "Plaintext to a STRICT service",
        "Callers under the DestinationRule are refused by the service.",
        "Use mode ISTIO_MUTUAL or leave tls out; mutual TLS is the default.",
    ),
    Entry(
        Code.UNREACHABLE_RULE,
        "Rule never reached",
        "The rule has no effect: an earlier one takes all of its requests.",
        "Put the narrower rule first.",
    ),
    Entry(
        Code.AMBIGUOUS_ADDRESS,
        "One address, several services",
        "A client that dials the endpoint itself gets the rules of the first service.",
        "Give each service its own port on the workload.",
    ),
    Entry(
        Code.DESTINATION_RULE_CONFLICT,
        "Two DestinationRules for one host",
        "The older policy, or the older subset of the name, holds.",
        "Write the settings for one host into one DestinationRule.",
    ),
    Entry(
        Code.POLICY_CONFLICT,
        "Two policies for the same workloads",
        "The older policy holds; the other has no effect.",
        "Keep one of them.",
    ),
    Entry(
        Code.DUPLICATE_SERVICE,
        "Two objects for one host",
        "The older object defines the service.",
        "Keep one of them.",
    ),
    Entry(
        Code.UNUSUAL_WEIGHTS,
        "Weights that do not add up to 100",
        "Shares are taken of their sum, so they are not the percentages that they look like.",
        "Make the weights of a rule add up to 100, or leave them if shares of the sum are meant.",
    ),
    Entry(
        Code.NO_CERTIFICATE,
        "Gateway without its certificate",
        "The port takes no TLS connection until the certificate is there; its clients are refused.",
        "Apply the Secret that the gateway names, in the gateway's namespace, or correct the name.",
    ),
    Entry(
        Code.OVERLAPPING_HOSTS,
        "Wildcard host that overlaps another",
        "For hosts that both cover, the narrower one holds alone; the rules of the wider do not apply.",
        "Nothing needs to be done if that is meant; otherwise repeat the wider rules in the narrower object.",
    ),
    Entry(
        Code.UNKNOWN_GATEWAY,
        "Gateway that does not exist",
        "The rules have no effect at that gateway: nothing takes requests for it.",
        "Correct the name (namespace/name for another namespace), or apply the gateway.",
    ),
    Entry(
        Code.UNKNOWN_OBJECT,
        "Object that does not exist",
        "What the reference is for does not happen; requests that need it are refused.",
        "Correct the name and namespace, or apply the object.",
    ),
    Entry(
        Code.ROLLOUT_PASSED_BY,
        "Rule that a rollout does not reach",
        "The rule names a subset, which is meant: its requests are not split and not counted for the gates.",
        "Leave the subset out of the rule's destination, and the rollout chooses the version.",
    ),
    Entry(
        Code.NOT_BUILT,
        "Resource that could not be built",
        "The resource is withheld; proxies keep the last good version.",
        "Report it, with the objects that the message names.",
    ),
    Entry(
        Code.REJECTED,
        "Resource that a proxy rejected",
        "The resource is quarantined; proxies keep the last good version, security policies deny.",
        "Correct the field that the message names.",
    ),
    Entry(
        Code.UNTRIED,
        "Patch that was not tried yet",
        "No proxy gets the patch before one proxy's Envoy has validated the result.",
        "Start a workload that the object selects, or correct its selector.",
    ),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType({entry.code.value: entry for entry in _ENTRIES})
"""By code, such as ``RT0101``."""
