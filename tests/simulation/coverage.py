"""Which fields of the supported kinds the simulation cases exercise: ``docs/reference/coverage.md``.

A field counts where an object of a case has it and applying that object gives no error. A model that several
fields share (``trafficPolicy`` of a subset) counts once, where the reference shows it; a field that this
version refuses needs no case. ``python -m tests.simulation.coverage`` prints what has no case;
``--write`` writes the page, ``--check`` fails where it is not up to date.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retia.config import kinds
from retia.config.kinds import Kind
from retia.config.parse import namespace_of
from retia.config.reference import _models, _source, fields_of
from retia.config.schema.base import Model
from retia.model.objects import ObjectRef
from tests.simulation.case import Case, all_cases
from tests.simulation.meshes import Simulated, documents

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "coverage.md"
_HEAD = """# Coverage of fields by simulation cases

Made by `make docs`; do not edit. Each case is a configuration with calls and what is expected of them; it
runs against the generated resources and in real Envoys (`tests/simulation/README.md`). A field counts where
a case has an object with it. Fields that this version refuses are not counted.
"""


@dataclass
class KindCoverage:
    """``covered``: field path to the number of cases."""

    kind: str
    wanted: tuple[str, ...]
    refused: tuple[str, ...]
    covered: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(path for path in self.wanted if not self.covered.get(path))


def measure(cases: tuple[Case, ...]) -> list[KindCoverage]:
    """For every kind, in the order of the reference."""
    found: dict[str, KindCoverage] = {}
    for name, kind in kinds.KINDS.items():
        rows = fields_of(name)
        refused = tuple(r.path for r in rows if r.status.startswith("**not yet**"))
        wanted = tuple(r.path for r in rows if r.path not in refused)
        # An object without fields of its own is covered by being there.
        found[name] = KindCoverage(kind.name, wanted or ("(there)",), refused)
    for case in cases:
        for kind, path in _used(case):
            found[kind].covered[path].add(case.id)
        for path in case.covers:
            kind_name, _, rest = path.partition(".")
            if kind_name in found:
                found[kind_name].covered[rest.removeprefix("spec.")].add(case.id)
    return list(found.values())


def page(cases: tuple[Case, ...]) -> str:
    """The page as Markdown."""
    measured = measure(cases)
    calls = sum(len(case.calls) for case in cases)
    real = sum(1 for case in cases if "real" in case.only)
    lines = [_HEAD, f"{len(cases)} cases with {calls} calls; {real} of them run in real Envoys too.", ""]
    lines += ["| kind | fields | with a case | without |", "|---|---|---|---|"]
    for each in measured:
        missing = len(each.missing)
        lines.append(f"| `{each.kind}` | {len(each.wanted)} | {len(each.wanted) - missing} | {missing} |")
    lines += ["", "## Fields without a case", ""]
    gaps = [each for each in measured if each.missing]
    lines += ["None.", ""] if not gaps else []
    for each in gaps:
        lines += [f"### {each.kind}", "", *(f"* `{path}`" for path in each.missing), ""]
    alone = [case for case in cases if len(case.only) < 2 or any(len(c.only) < 2 for c in case.calls)]
    lines += ["## Cases that run in one way only", ""]
    lines += ["None."] if not alone else []
    for case in alone:
        reasons = {case.reason, *(c.reason for c in case.calls)} - {""}
        lines.append(f"* `{case.path}`, {case.name}: {'; '.join(sorted(reasons))}")
    return "\n".join(lines).rstrip() + "\n"


def _used(case: Case) -> Iterator[tuple[str, str]]:
    """The kinds and field paths that a case's accepted objects have."""
    if case.broken or not case.config:
        return
    accepted = {obj.ref for obj in Simulated(case).objects}
    for document in documents(case.config):
        kind = _kind(document)
        if kind is None:
            continue
        metadata = document["metadata"]
        namespace = str(namespace_of(metadata.get("namespace") or "default")) if kind.namespaced else ""
        ref = ObjectRef(kind.name, namespace_of(namespace) if namespace else namespace, metadata["name"])  # type: ignore[arg-type]
        if ref not in accepted:
            continue
        yield kind.name, "(there)"
        roots = {"spec": document.get("spec")} if kind.roots == ("spec",) else document
        content = roots.get("spec") if kind.roots == ("spec",) else {r: document.get(r) for r in kind.roots}
        for path in _walk(content, kind.model, "", _places(kind)):
            yield kind.name, path


def _kind(document: Mapping[str, Any]) -> Kind | None:
    group = str(document["apiVersion"]).rpartition("/")[0]
    return next((k for k in kinds.KINDS.values() if (k.group, k.kind) == (group, document["kind"])), None)


def _places(kind: Kind) -> dict[type[Model], str]:
    """Where the reference shows the fields of each model."""
    seen: dict[type[Model], str] = {kind.model: ""}
    _note(kind.model, "", seen)
    return seen


def _note(model: type[Model], prefix: str, seen: dict[type[Model], str]) -> None:
    for name, info in model.model_fields.items():
        inner = next(_models(info.annotation), None)
        if inner is not None and inner not in seen:
            written = _source(model).get(name, ("", ""))[0]
            seen[inner] = _opened(f"{prefix}{info.alias or name}", written)
            _note(inner, f"{seen[inner]}.", seen)


def _opened(path: str, written: str) -> str:
    """As the reference opens a field of that annotation."""
    if "FrozenMap[" in written:
        return f"{path}.*"
    return f"{path}[]" if "tuple[" in written else path


def _walk(value: Any, model: type[Model], place: str, places: dict[type[Model], str]) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    known = {info.alias or name: info for name, info in model.model_fields.items()}
    known |= {name: info for name, info in model.model_fields.items() if name not in known}
    for key, item in value.items():
        info = known.get(key)
        if info is None or item is None:
            continue
        alias = next(info.alias or n for n, i in model.model_fields.items() if i is info)
        yield f"{place}{alias}"
        inner = next(_models(info.annotation), None)
        if inner is None:
            continue
        at = places.get(inner, "")
        for each in _items(item, inner):
            yield from _walk(each, inner, f"{at}." if at else "", places)


def _items(value: Any, inner: type[Model]) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        names = {info.alias or name for name, info in inner.model_fields.items()}
        if value and not names & set(value):
            return list(value.values())  # a map of names to objects
        return [value]
    return []


def main() -> None:
    text = page(all_cases())
    if "--write" in sys.argv:
        PAGE.write_text(text)
        print(f"docs/reference/{PAGE.name}: written")
        return
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit(f"docs/reference/{PAGE.name} is not what the cases say now; run: make docs")
        return
    for each in measure(all_cases()):
        if each.missing:
            print(f"{each.kind}: {len(each.missing)} of {len(each.wanted)} without a case")
            for path in each.missing:
                print(f"  {path}")


if __name__ == "__main__":
    main()
