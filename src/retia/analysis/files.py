"""Judging files where no mesh need run: what ``retia analyze -f`` and a check before ``apply`` say.

The services that a mesh gets from ``retia run`` are in no file. So where the files define no ``Service``, a
name of the mesh's own suffix is not said to mean nothing; everything that they do say is judged in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from retia.analysis.analyze import analyze
from retia.config.codes import Code
from retia.config.parse import Document, Parsed, SourceText, parse
from retia.model.finding import Finding
from retia.model.mesh import MeshSettings
from retia.model.objects import ObjectRef
from retia.policy.facts import FactBase


def judge(
    sources: Iterable[SourceText], settings: MeshSettings | None = None, *, schema_only: bool = False
) -> tuple[Finding, ...]:
    """All that is wrong with the files by themselves, sorted by place. With ``schema_only`` each document is
    judged alone, without its surroundings."""
    parsed = parse(sources)
    if schema_only:
        # That another document has the same name is a matter of its surroundings.
        return tuple(each for each in parsed.findings if each.code != Code.DUPLICATE_OBJECT)
    return by_place([*parsed.findings, *placed(among(parsed, settings or MeshSettings()), parsed.documents)])


def among(parsed: Parsed, settings: MeshSettings) -> tuple[Finding, ...]:
    """What is wrong between the objects of some files."""
    facts = FactBase(settings)
    facts.put_objects(parsed.objects)
    facts.take_changes()
    complete = any(obj.ref.kind == "Service" for obj in parsed.objects)
    return analyze(parsed.objects, facts.services.values(), suffix=settings.dns_suffix, complete=complete)


def placed(findings: Iterable[Finding], documents: Iterable[Document]) -> tuple[Finding, ...]:
    """The findings with file and line of the fields they are about."""
    known: Mapping[ObjectRef, Document] = {document.ref: document for document in documents}
    return tuple(
        replace(each, origin=known[each.ref].place(each.field))
        if each.ref is not None and each.ref in known and not each.origin.path
        else each
        for each in findings
    )


def by_place(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorted as a reader goes through the files; what has no place comes last."""
    return tuple(sorted(findings, key=lambda f: (not f.origin.path, f.origin.path, f.origin.line, str(f))))
