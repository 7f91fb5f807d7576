"""Whether Envoy's regular expression engine (RE2) will accept a pattern.

Python's ``re`` is no judge: it accepts what RE2 refuses (look-around, back-references, possessive
repetition) and refuses what RE2 accepts (``\\pL``, ``\\z``, ``[[:alpha:]]``, flags in mid-pattern). So the
syntax is walked here, after https://github.com/google/re2/wiki/Syntax. What a pattern matches is left to
Envoy; the only question is whether Envoy would reject the route that holds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_LENGTH = 1024
"""Istio's limit: the compiled program is always longer than the text."""
MAX_PROGRAM = 32768
"""Instructions of one compiled pattern; Istio's number. Proxies are given the same limit, and patterns that
might need more are refused here."""
_MAX_REPEAT = 1000
"""RE2's limit for one counted repetition and for the product of nested ones."""

_MAX_ESCAPE = 0xFF
_CLASS_SIZE = 16
"""Instructions of a class of characters, more than any that was measured needs (proxies match bytes)."""

_COUNT = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}", re.ASCII)
_GROUP_NAME = re.compile(r"P?<([A-Za-z_][A-Za-z0-9_]*)>", re.ASCII)
_FLAGS = re.compile(r"([imsU]*(?:-[imsU]+)?)([:)])")
_LOOK_AROUND = re.compile(r"<?[=!]")
_UNICODE_CLASS = re.compile(r"\{\^?[A-Za-z_]+\}|[A-Z]")
_HEX = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2})")
_POSIX_CLASS = re.compile(
    r"\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
_ESCAPES = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


class PatternError(ValueError):
    """The pattern is not RE2; the message says why."""


def check(pattern: str) -> int:
    """The number of capturing groups of ``pattern``; raises :class:`PatternError` if RE2 would refuse it."""
    if not pattern:
        raise PatternError("the pattern is empty")
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"the pattern has {len(pattern)} characters; at most {MAX_LENGTH} are allowed")
    return _Walker(pattern).walk()


@dataclass(slots=True)
class _Group:
    repeats: int = 1
    """The largest product of counted repetitions inside."""
    size: int = 0
    """Instructions that it compiles to, at most."""


@dataclass(slots=True)
class _Walker:
    text: str
    at: int = 0
    captures: int = 0
    names: set[str] = field(default_factory=set)
    groups: list[_Group] = field(default_factory=lambda: [_Group()])
    operand: int = 0
    """What a repetition would apply to: 0 nothing, otherwise the repeats inside it."""
    repeated: bool = False
    """Whether the operand has a repetition already."""
    size: int = 0
    """Instructions of the operand, at most."""

    def walk(self) -> int:
        while self.at < len(self.text):
            self._step(self.text[self.at])
        if len(self.groups) > 1:
            raise PatternError("a parenthesis is not closed")
        if self.groups[0].size > MAX_PROGRAM:
            raise PatternError(
                f"the pattern would compile to {self.groups[0].size} instructions; "
                f"at most {MAX_PROGRAM} are allowed"
            )
        return self.captures

    def _step(self, char: str) -> None:
        if char == "(":
            self._open()
        elif char == ")":
            self._close()
        elif char == "[":
            start = self.at
            self._set()
            self._atom(size=max(self.at - start, _CLASS_SIZE))
        elif char == "\\":
            self._escape()
        elif char in "*+?":
            self._repeat(char, 1, 1)
        elif char == "{" and (count := _COUNT.match(self.text, self.at)):
            self._counted(count)
        elif char == "|":
            self.at += 1
            self.operand, self.repeated = 0, False
            self.groups[-1].size += 1
        else:
            self.at += 1
            self._atom()

    def _atom(self, repeats: int = 1, size: int = 2) -> None:
        self.operand, self.repeated, self.size = repeats, False, size
        self.groups[-1].size += size

    def _repeat(self, operator: str, count: int, length: int) -> None:
        if not self.operand:
            raise PatternError(f"there is nothing for {operator} to repeat")
        if self.repeated:
            raise PatternError(f"{operator} repeats a repetition; RE2 has no possessive or nested repetition")
        self.operand *= count
        if self.operand > _MAX_REPEAT:
            raise PatternError(f"{operator} repeats more than {_MAX_REPEAT} times")
        self.groups[-1].repeats = max(self.groups[-1].repeats, self.operand)
        # Each copy of the operand may be left out, which is one instruction more.
        self.groups[-1].size += self.size * (count - 1) + 2 * count
        self.at += length
        if self.text[self.at : self.at + 1] == "?":
            self.at += 1
        self.repeated = True

    def _counted(self, count: re.Match[str]) -> None:
        low, high = int(count[1]), count[2]
        top = low if high is None or high == "" else int(high)
        if top < low:
            raise PatternError(f"{count[0]} ends before it starts")
        self._repeat(count[0], max(top, 1), len(count[0]))

    def _open(self) -> None:
        self.at += 1
        if self.text[self.at : self.at + 1] == "?":
            self.at += 1
            if not self._open_special():
                return
        else:
            self.captures += 1
        self.groups.append(_Group())
        self.operand, self.repeated = 0, False

    def _open_special(self) -> bool:
        """Reads what follows ``(?``; whether it opens a group."""
        if _LOOK_AROUND.match(self.text, self.at):
            raise PatternError("look-ahead and look-behind are not part of RE2")
        if name := _GROUP_NAME.match(self.text, self.at):
            if name[1] in self.names:
                raise PatternError(f"the group name {name[1]} is used twice")
            self.names.add(name[1])
            self.captures += 1
            self.at = name.end()
            return True
        flags = _FLAGS.match(self.text, self.at)
        if flags is None or flags[0] == ")":
            raise PatternError(f"(?{self.text[self.at : self.at + 1]} opens no group that RE2 knows")
        self.at = flags.end()
        return flags[2] == ":"

    def _close(self) -> None:
        if len(self.groups) == 1:
            raise PatternError("a parenthesis is closed that was not opened")
        inner = self.groups.pop()
        self.groups[-1].repeats = max(self.groups[-1].repeats, inner.repeats)
        self.at += 1
        self._atom(inner.repeats, inner.size + 2)

    def _escape(self) -> None:
        start = self.at
        following = self.text[self.at + 1 : self.at + 2]
        if following == "Q":
            end = self.text.find("\\E", self.at + 2)
            self.at = len(self.text) if end < 0 else end + 2
        elif following and following in "AzbBCdDsSwW":
            self.at += 2
        elif following and following in "pP":
            self._unicode_class()
        else:
            self._literal_escape()
        self._atom(size=_CLASS_SIZE if following in "pPdDsSwW" else 2 + 2 * (self.at - start))

    def _unicode_class(self) -> None:
        found = _UNICODE_CLASS.match(self.text, self.at + 2)
        if not found:
            raise PatternError(
                f"{self.text[self.at : self.at + 2]} needs a class such as \\pL or \\p{{Greek}}"
            )
        self.at = found.end()

    def _literal_escape(self) -> int:
        """Reads an escape that stands for one character; its code point."""
        following = self.text[self.at + 1 : self.at + 2]
        if not following:
            raise PatternError("a backslash stands at the end")
        if following == "x":
            return self._hex()
        if following.isascii() and following.isdigit():
            return self._octal()
        if following in _ESCAPES:
            self.at += 2
            return _ESCAPES[following]
        if following.isascii() and (not following.isalnum()):
            self.at += 2
            return ord(following)
        raise PatternError(f"\\{following} is no escape that RE2 knows")

    def _hex(self) -> int:
        found = _HEX.match(self.text, self.at + 2)
        if not found:
            raise PatternError("\\x needs two hexadecimal digits, or a byte in braces")
        self.at = found.end()
        return self._byte(int(found[1] or found[2], 16))

    def _byte(self, value: int) -> int:
        """Envoy matches bytes: a character beyond ASCII is written as itself, not by its number."""
        if value > _MAX_ESCAPE:
            raise PatternError(f"an escape stands for {value:#x}; proxies compare bytes, so at most 0xff is")
        return value

    def _octal(self) -> int:
        end = self.at + 1
        while end < min(self.at + 4, len(self.text)) and self.text[end] in "01234567":
            end += 1
        digits = self.text[self.at + 1 : end]
        if not digits or (digits[0] != "0" and len(digits) < 2):
            raise PatternError(f"\\{self.text[self.at + 1]} is a back-reference, which is not part of RE2")
        self.at = end
        return self._byte(int(digits, 8))

    def _set(self) -> None:
        """Reads a character class, from ``[`` to its ``]``."""
        self.at += 1
        if self.text[self.at : self.at + 1] == "^":
            self.at += 1
        first = True
        while first or self.text[self.at : self.at + 1] != "]":
            if self.at >= len(self.text):
                raise PatternError("a [ is not closed")
            self._set_item()
            first = False
        self.at += 1

    def _set_item(self) -> None:
        if self.text.startswith("[:", self.at) and (found := _POSIX_CLASS.match(self.text, self.at)):
            self.at = found.end()
            return
        if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2] in (
            "d",
            "D",
            "s",
            "S",
            "w",
            "W",
        ):
            self.at += 2
            return
        if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2] in ("p", "P"):
            self._unicode_class()
            return
        low = self._set_char()
        if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
            self.at += 1
            if self._set_char() < low:
                raise PatternError("a range in a character class ends before it starts")

    def _set_char(self) -> int:
        if self.text[self.at] == "\\":
            return self._literal_escape()
        self.at += 1
        return ord(self.text[self.at - 1])
