"""Pydantic's errors as our sentences: what the value is, what it must be, what was probably meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from retia.config.codes import Code
from retia.config.scalars import read_atom
from retia.config.schema.base import Model, Path, Problem, ProblemsError

_SHOWN_CHARS = 60
_TYPES = {
    "string_type": "text (put it in quotes)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bytes_type": "text in base64",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "{} or less"),
    "less_than": ("lt", "less than {}"),
}


def problems_of(error: ValidationError, model: type[Model]) -> Iterator[Problem]:
    """The broken rules that ``error`` tells of, with paths relative to the model."""
    seen: set[tuple[Path, str]] = set()
    for each in error.errors(include_url=False):
        for problem in _problems(dict(each), model):
            if (problem.path, problem.message) not in seen:
                seen.add((problem.path, problem.message))
                yield problem


def _problems(error: dict[str, Any], model: type[Model]) -> Iterator[Problem]:
    path, is_key = _path(error["loc"])
    kind, value = error["type"], error["input"]
    context = error.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, ProblemsError):
        yield from (Problem((*path, *p.path), p.message, p.code) for p in cause.problems)
    elif kind == "extra_forbidden":
        yield Problem(path, _unknown(path, model), Code.UNKNOWN_FIELD)
    elif kind == "missing":
        yield Problem(path, "is missing", Code.MISSING_FIELD)
    elif kind == "value_error":
        yield Problem(path, _value_error(value, str(cause), is_key=is_key), Code.BAD_VALUE)
    elif kind == "enum":
        choices = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        yield Problem(path, f"is {show(value)}; it must be one of {choices}", Code.BAD_VALUE)
    elif kind in _BOUNDS:
        name, rule = _BOUNDS[kind]
        yield Problem(
            path, f"is {show(value)}; it must be {rule.format(f'{context[name]:.15g}')}", Code.BAD_VALUE
        )
    elif kind in ("too_long", "string_too_long"):
        most = context.get("max_length")
        yield Problem(path, f"is too long; at most {most} are allowed", Code.BAD_VALUE)
    elif kind in ("too_short", "string_too_short"):
        least = context.get("min_length")
        yield Problem(path, f"is too short; at least {least} is needed", Code.BAD_VALUE)
    else:
        rule = _TYPES.get(kind, f"right ({error['msg']})")
        yield Problem(path, f"is {show(value)}; it must be {rule}", Code.WRONG_TYPE)


def _path(loc: tuple[str | int, ...]) -> tuple[Path, bool]:
    """The path as users write it, and whether it is about a map's key."""
    is_key = bool(loc) and loc[-1] == "[key]"
    # A union's member names itself in the location (``int``, ``constrained-str``); users never wrote that.
    kept = tuple(part for part in loc if part not in ("[key]", "constrained-int", "int", "str"))
    return kept, is_key


def _value_error(value: Any, rule: str, *, is_key: bool) -> str:
    if is_key:
        return f"has a key that is wrong; it {rule}"
    if not rule.startswith("must"):
        return rule
    return f"is {show(value)}; it {rule}" if not isinstance(value, dict | list) else rule


def show(value: Any) -> str:
    """A value, short enough for a message."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = _text(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _text(value: str) -> str:
    """A text as it stands, or in quotes where it could be taken for something else."""
    plain = value.isprintable() and " " not in value and isinstance(read_atom(value), str)
    return value if plain else json.dumps(value[: _SHOWN_CHARS + 1], ensure_ascii=False)


def _unknown(path: Path, model: type[Model]) -> str:
    owner = _model_at(model, path[:-1])
    known = [info.alias or name for name, info in owner.model_fields.items()] if owner else []
    where = f"is no field of {owner.__name__}" if owner else "is no field"
    close = difflib.get_close_matches(str(path[-1]), known, 1)
    if close:
        return f"{where}; did you mean {close[0]}?"
    return f"{where}; its fields are {', '.join(known)}" if 0 < len(known) <= 10 else where


def _model_at(model: type[Model], path: Path) -> type[Model] | None:
    """The model at a path of the document."""
    current: Any = model
    for part in path:
        models = list(_models_in(current))
        if isinstance(part, int) or not models:
            continue
        fields = {info.alias or name: info.annotation for name, info in models[0].model_fields.items()}
        current = fields.get(part, current)
    return next(iter(_models_in(current)), None)


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation  # type: ignore[misc]
    for argument in get_args(annotation):
        yield from _models_in(argument)
