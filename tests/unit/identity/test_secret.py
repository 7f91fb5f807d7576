"""Secrets aren't printed."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass

import pytest

from retia.identity.secret import Secret

HIDDEN = b"hunter2"


@dataclass
class Holder:
    name: str
    key: Secret


@pytest.mark.parametrize("text", [repr, str, "{}".format, "{!r}".format, ascii, lambda s: f"{s!s:}"])
def test_every_way_of_printing_hides_it(text: object) -> None:
    assert callable(text)
    assert text(Secret(HIDDEN)) == "[redacted]"
    assert "hunter2" not in text(Holder("a", Secret(HIDDEN)))
    assert "hunter2" not in text([Secret(HIDDEN)])


def test_it_is_not_pickled_nor_written_as_json() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(HIDDEN))
    with pytest.raises(TypeError):
        json.dumps({"key": Secret(HIDDEN)})


def test_it_is_compared_and_copied() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
    assert copy.deepcopy(Holder("a", Secret(b"a"))) == Holder("a", Secret(b"a"))
    assert len({Secret(b"a"), Secret(b"a")}) == 1
    assert Secret(HIDDEN).reveal() == HIDDEN
    assert len(Secret(HIDDEN)) == 7
