"""Texts in, objects and findings out: the one way from users' YAML to the mesh's configuration.

All documents of all texts are read and every problem is a finding with file, line and field path; the caller
decides whether errors forbid applying (they do, for ``apply``). An object is returned only if it has no error
of its own. Objects that two documents define are returned from neither, so that the order of documents never
matters.

Kinds that are mesh configuration and not supported by this version are errors; Kubernetes' other kinds are
skipped with a word; ``status`` and what a server adds to ``metadata`` are accepted and dropped.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, ValidationError

from retia.config import kinds, names, yaml_text
from retia.config.codes import Code, finding
from retia.config.messages import problems_of, show
from retia.config.paths import format_path
from retia.config.schema import mesh_config
from retia.config.schema.base import FrozenMap, Model, Path, Problem
from retia.config.schema.types import LabelMap, Text
from retia.config.support import unsupported, unsupported_settings
from retia.model.finding import Finding, Level
from retia.model.ids import MESH_NAMESPACE, Namespace
from retia.model.objects import ConfigObject, ObjectRef, Origin

ISTIO_NAMESPACE = "istio-system"
"""Istio's root namespace, read as ours."""
_NOWHERE = Origin()
MAX_FINDINGS = 200
"""For one document; a document with more has one mistake made many times."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text and where it came from (a file's path, ``-`` for standard input). Bytes are read as UTF-8."""

    path: str
    text: str | bytes


@dataclass(frozen=True, slots=True)
class Document:
    """The user's own document of an object, as plain JSON data, to be stored and shown again."""

    ref: ObjectRef
    raw: Mapping[str, Any]
    origin: Origin = _NOWHERE
    text: yaml_text.TextDocument | None = field(default=None, compare=False, repr=False)
    at: Path = ()
    """Where in the text's document the object stands; an item of a list has a path."""

    def place(self, field_path: str) -> Origin:
        """Where a field (``spec.http[0]``) stands, or the nearest that contains it."""
        if self.text is None or not field_path:
            return self.origin
        best, line = -1, self.origin.line
        for path, number in self.text.lines.items():
            if path[: len(self.at)] != self.at or len(path) - len(self.at) <= best:
                continue
            found = format_path(path[len(self.at) :])
            if found and field_path.startswith(found) and field_path[len(found) :][:1] in ("", ".", "["):
                best, line = len(path) - len(self.at), number
        return Origin(self.origin.path, line)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What came of some texts. ``documents`` run parallel to ``objects``; both are sorted by kind, namespace
    and name, findings by place."""

    objects: tuple[ConfigObject, ...] = ()
    findings: tuple[Finding, ...] = ()
    documents: tuple[Document, ...] = ()

    @property
    def ok(self) -> bool:
        """No finding is an error."""
        return not any(each.level is Level.ERROR for each in self.findings)


def parse(sources: Iterable[SourceText], default_namespace: str = "default") -> Parsed:
    """All objects of ``sources`` and all that is wrong with them. Never raises.

    ``default_namespace`` is for documents that name none.
    """
    found = _Found()
    for source in sources:
        for document in _read(source, found):
            _Reader(found, source.path, document, default_namespace).read_root()
    return found.result()


def parse_document(raw: Any, default_namespace: str = "default", origin: Origin = _NOWHERE) -> Parsed:
    """The same for one document that is data already (from JSON or from a store)."""
    found = _Found()
    document = yaml_text.TextDocument(origin.line, raw)
    _Reader(found, origin.path, document, default_namespace).read_root()
    return found.result()


def namespace_of(text: str) -> Namespace:
    """A namespace as the mesh knows it: Istio's root namespace is ours."""
    return MESH_NAMESPACE if text == ISTIO_NAMESPACE else Namespace(text)


class Metadata(Model):
    """``metadata``: what is used, and what servers and tools add, which is dropped."""

    name: Text = ""
    namespace: Text = ""
    labels: LabelMap = ()
    annotations: FrozenMap[Text, Text] = ()
    generate_name: Any = None
    uid: Any = None
    resource_version: Any = None
    generation: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    managed_fields: Any = None
    owner_references: Any = None
    finalizers: Any = None
    self_link: Any = None
    cluster_name: Annotated[Any, Field(description="Gone from Kubernetes; still in old dumps.")] = None


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    findings: list[Finding] = field(default_factory=list)
    objects: dict[ObjectRef, list[tuple[ConfigObject | None, Document]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def result(self) -> Parsed:
        self._refuse_duplicates()
        single = (copies[0] for copies in self.objects.values() if len(copies) == 1)
        pairs = [(obj, document) for obj, document in single if obj is not None]
        pairs.sort(key=lambda pair: (pair[0].ref.kind, pair[0].ref.namespace, pair[0].ref.name))
        return Parsed(
            tuple(obj for obj, _ in pairs),
            tuple(sorted(self.findings, key=_place)),
            tuple(document for _, document in pairs),
        )

    def _refuse_duplicates(self) -> None:
        for ref, copies in self.objects.items():
            places = sorted({f"{d.origin.path}:{d.origin.line}" for _, d in copies})
            for _, document in copies if len(copies) > 1 else ():
                mine = f"{document.origin.path}:{document.origin.line}"
                others = [place for place in places if place != mine]
                message = f"is defined {len(copies)} times" + (
                    f", also in {', '.join(others)}" if others else ""
                )
                remedy = "keep one of them"
                self.findings.append(
                    finding(Code.DUPLICATE_OBJECT, message, ref=ref, origin=document.origin, remedy=remedy)
                )


def _place(each: Finding) -> tuple[str, int, str, str, str]:
    return (each.origin.path, each.origin.line, each.field, each.code, each.message)


def _read(source: SourceText, found: _Found) -> Iterator[yaml_text.TextDocument]:
    if isinstance(source.text, bytes):
        try:
            text = source.text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = source.text.count(b"\n", 0, error.start) + 1
            message = f"the text is not UTF-8 (byte {error.start})"
            found.findings.append(finding(Code.UNREADABLE, message, origin=Origin(source.path, line)))
            return
    else:
        text = source.text.removeprefix("\ufeff")
    yield from yaml_text.read(text)


@dataclass(slots=True)
class _Reader:
    """Reads one YAML document: an object, or a list of them."""

    found: _Found
    path: str
    document: yaml_text.TextDocument
    default_namespace: str

    def read_root(self) -> None:
        ref = _ref_guess(self.document.data, self.default_namespace)
        for problem in self.document.problems:
            self.found.findings.append(
                finding(
                    problem.code,
                    problem.message,
                    ref=ref,
                    field=format_path(problem.path),
                    origin=Origin(self.path, problem.line),
                )
            )
        if self.document.data is not None:
            self._read(self.document.data, (), bool(self.document.problems))

    def _read(self, raw: Any, at: Path, broken: bool) -> None:
        """Read the document at a path of the text's (an item of a list has one)."""
        if not isinstance(raw, Mapping):
            self._note(
                Code.NOT_AN_OBJECT, f"is {show(raw)}; it must be an object with apiVersion and kind", at
            )
            return
        version, kind = raw.get("apiVersion"), raw.get("kind")
        for key, value in (("apiVersion", version), ("kind", kind)):
            if not isinstance(value, str) or not value:
                what = "is missing" if value is None else f"is {show(value)}; it must be text"
                self._note(Code.NOT_AN_OBJECT, what, (*at, key))
                return
        assert isinstance(version, str) and isinstance(kind, str)
        if kind.endswith("List") and isinstance(raw.get("items"), list):
            for index, item in enumerate(raw["items"]):
                self._read(item, (*at, "items", index), broken)
        elif self._is_read(version, kind, raw, at):
            known = kinds.find(version.rpartition("/")[0], kind)
            assert known is not None  # it is read
            self._read_object(raw, known, at, broken)

    def _is_read(self, version: str, kind: str, raw: Mapping[str, Any], at: Path) -> bool:
        """Whether the kind is read; says so where it is not."""
        group, _, number = version.rpartition("/")
        known = kinds.find(group, kind)
        ref = _ref_guess(raw, self.default_namespace)
        if known:
            if number in known.versions and version == (f"{group}/{number}" if group else number):
                return True
            versions = ", ".join(f"{group}/{each}" if group else each for each in known.versions)
            message = f"is {version}; for {kind} it must be one of {versions}"
            self._note(Code.UNKNOWN_VERSION, message, (*at, "apiVersion"), ref)
        elif kind in kinds.NOT_YET.get(group, ()) or group == kinds.OWN_GROUP:
            message = f"is {kind} of {version}, which is not supported by this version"
            self._note(Code.UNSUPPORTED_KIND, message, (*at, "kind"), ref)
        elif kinds.is_kubernetes_group(group) or (version == "v1" and kind in kinds.CORE_KINDS):
            message = f"{kind} of {version} is no mesh configuration; it is skipped"
            self._note(Code.SKIPPED_KIND, message, at, ref)
        else:
            self._note(Code.UNKNOWN_KIND, _unknown_kind(kind, group, version), (*at, "kind"), ref)
        return False

    def _read_object(self, raw: Mapping[str, Any], kind: kinds.Kind, at: Path, broken: bool) -> None:
        before = len(self.found.findings)
        metadata = self._metadata(raw, kind, at)
        ref = _ref_guess(raw, self.default_namespace)
        for key in raw:
            if key not in ("apiVersion", "kind", "metadata", "status", *kind.roots):
                self._note(Code.UNKNOWN_FIELD, "is no field of an object", (*at, key), ref)
        if kind.roots == ("spec",):
            spec = self._spec(raw.get("spec"), kind, (*at, "spec"), ref)
        else:
            spec = self._spec({key: raw[key] for key in kind.roots if key in raw}, kind, at, ref)
        self._cap(before, ref, at)
        if ref is None:
            return
        origin = Origin(self.path, self.document.line_of(at))
        mine = self.found.findings[before:]
        good = not broken and spec is not None and metadata is not None
        obj: ConfigObject | None = None
        if good and metadata and not any(each.level is Level.ERROR for each in mine):
            obj = ConfigObject(ref, spec, metadata.labels, metadata.annotations)
        self.found.objects[ref].append((obj, Document(ref, raw, origin, self.document, at)))

    def _metadata(self, raw: Mapping[str, Any], kind: kinds.Kind, at: Path) -> Metadata | None:
        at = (*at, "metadata")
        ref = _ref_guess(raw, self.default_namespace)
        try:
            metadata = Metadata.model_validate(raw.get("metadata") or {}, by_alias=True, by_name=False)
        except ValidationError as error:
            for problem in problems_of(error, Metadata):
                self._note(problem.code, problem.message, (*at, *problem.path), ref)
            return None
        if not metadata.name:
            self._note(Code.MISSING_FIELD, "is missing", (*at, "name"), ref)
        elif not _is_name(kind.name, metadata.name):
            what = "DNS label" if kind.name == "Service" else "DNS name"
            rule = f"it must be a {what} in lower case: letters, digits and -, the ends not -"
            self._note(Code.METADATA, f"is {show(metadata.name)}; {rule}", (*at, "name"), ref)
        if metadata.namespace and not names.is_object_label(metadata.namespace):
            rule = "it must be a DNS label in lower case"
            self._note(Code.METADATA, f"is {show(metadata.namespace)}; {rule}", (*at, "namespace"), ref)
        return metadata

    def _spec(self, raw: Any, kind: kinds.Kind, at: Path, ref: ObjectRef | None) -> Model | None:
        spec = {} if raw is None else raw
        limits: list[Problem] = []
        if isinstance(spec, Mapping):
            limits = list(unsupported(kind.name, spec))
        limits += _settings_problems(kind, spec, ref)
        for problem in limits:
            self._note(problem.code, problem.message, (*at, *problem.path), ref)
        try:
            return kind.model.model_validate(spec, by_alias=True, by_name=False)
        except ValidationError as error:
            for problem in problems_of(error, kind.model):
                self._note(problem.code, problem.message, (*at, *problem.path), ref)
            return None

    def _note(self, code: Code, message: str, at: Path, ref: ObjectRef | None = None) -> None:
        field_path = at[2:] if at[:1] == ("items",) and len(at) > 2 and ref else at
        origin = Origin(self.path, self.document.line_of(at))
        self.found.findings.append(
            finding(code, message, ref=ref, field=format_path(field_path), origin=origin)
        )

    def _cap(self, before: int, ref: ObjectRef | None, at: Path) -> None:
        mine = self.found.findings[before:]
        if len(mine) > MAX_FINDINGS:
            mine.sort(key=lambda each: (each.level is not Level.ERROR, _place(each)))
            self.found.findings[before:] = mine[:MAX_FINDINGS]
            message = f"has {len(mine) - MAX_FINDINGS} more findings, which are not shown"
            self._note(Code.LIMIT, message, at, ref)


def _settings_problems(kind: kinds.Kind, spec: Any, ref: ObjectRef | None) -> list[Problem]:
    """What is wrong with the mesh's settings that a ConfigMap holds as a text."""
    if kind.name != "ConfigMap" or ref is None or ref.namespace != MESH_NAMESPACE:
        return []
    found = mesh_config.raw_of(ref.name, spec.get("data") if isinstance(spec, Mapping) else None)
    if found is None:
        return []
    at, raw = found
    broken = mesh_config.text_problem(raw)
    problems = [broken] if broken is not None else list(unsupported_settings(raw))
    try:
        if broken is None:
            mesh_config.MeshConfig.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += problems_of(error, mesh_config.MeshConfig)
    return [Problem((*at, *problem.path), problem.message, problem.code) for problem in problems]


def _ref_guess(raw: Any, default_namespace: str) -> ObjectRef | None:
    """The reference that a document claims, as far as it makes one."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("kind"), str):
        return None
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        return None
    version = raw.get("apiVersion")
    known = kinds.find(version.rpartition("/")[0], raw["kind"]) if isinstance(version, str) else None
    if known and not known.namespaced:
        return ObjectRef(known.name, Namespace(""), name)
    if not isinstance(namespace, str) or not namespace:
        namespace = default_namespace
    return ObjectRef(known.name if known else raw["kind"], namespace_of(namespace), name)


def _is_name(kind: str, name: str) -> bool:
    return names.is_object_label(name) if kind == "Service" else names.is_object_name(name)


def _unknown_kind(kind: str, group: str, version: str) -> str:
    if group in kinds.known_groups():
        close = difflib.get_close_matches(kind, kinds.kinds_of(group), 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        return f"is {show(kind)}, which {version} does not have{meant}"
    known = kinds.KINDS.get(kind)
    if known:
        return f"is {kind} of {version}; {kind} is of {known.api_version}"
    return f"is {show(kind)} of {show(version)}, which is not known here"
