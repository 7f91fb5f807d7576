"""What all models share: frozen, no unknown field, Istio's names outside and Python's inside, ``null`` means
absent, and rules between fields that name the field at fault.

Fields are checked first; the rules between the fields of a model (:meth:`Model.problems`) are checked once
all its fields are right. All broken rules are reported, not the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from retia.config.codes import Code

Path = tuple[str | int, ...]
"""A place in a document: names of fields (as users write them), indexes and keys of maps."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule. ``message`` goes on from the field's path: ``must not stand beside route``."""

    path: Path
    message: str
    code: Code = Code.CONFLICT


class ProblemsError(ValueError):
    """Broken rules between the fields of one model; paths are relative to it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, p.path))} {p.message}" for p in problems))
        self.problems = problems


def camel(name: str) -> str:
    """``per_try_timeout`` as users write it: ``perTryTimeout``."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


class Model(BaseModel):
    """A message of a user's document. Hashable: fields hold atoms, tuples and other models only."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=camel,
        populate_by_name=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    def problems(self) -> Iterable[Problem]:
        """The rules between fields that are broken."""
        return ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or None not in data.values():
            return data
        known = {(info.alias or name) for name, info in cls.model_fields.items()} | set(cls.model_fields)
        return {key: value for key, value in data.items() if value is not None or key not in known}

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        broken = tuple(self.problems())
        if broken:
            raise ProblemsError(broken)
        return self


class _AsMap:
    """A map in the document, sorted pairs in the model."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        key, value = get_args(get_args(source)[0])
        mapping = core_schema.dict_schema(handler.generate_schema(key), handler.generate_schema(value))
        return core_schema.chain_schema(
            [
                core_schema.no_info_plain_validator_function(_to_mapping),
                mapping,
                core_schema.no_info_plain_validator_function(_to_pairs),
            ],
            serialization=core_schema.wrap_serializer_function_ser_schema(
                lambda pairs, write: write(dict(pairs)), schema=mapping
            ),
        )


def _to_mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, tuple) else value


def _to_pairs(value: dict[Any, Any]) -> tuple[tuple[Any, Any], ...]:
    return tuple(sorted(value.items(), key=lambda pair: pair[0]))


FrozenMap = Annotated[tuple[tuple[K, V], ...], _AsMap()]
"""``FrozenMap[str, StringMatch]``: a map as pairs sorted by key."""


def one_of(model: Model, *names: str, required: bool = False) -> Iterator[Problem]:
    """Problems of fields of which at most one (exactly one, if ``required``) may be given."""
    given = [name for name in names if getattr(model, name) is not None]
    written = ", ".join(camel(name) for name in names)
    if len(given) > 1:
        both = " and ".join(camel(name) for name in given)
        yield Problem(
            (camel(given[1]),), f"must not stand beside {camel(given[0])}: {both} exclude one another"
        )
    if required and not given:
        yield Problem((), f"must have one of {written}", Code.MISSING_FIELD)
