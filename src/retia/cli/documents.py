"""Reading configuration files for the API: what ``-f`` names becomes documents."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from retia.api.schema import Document
from retia.cli.errors import CliError, UsageError

SUFFIXES = (".yaml", ".yml", ".json")


def read_documents(sources: Sequence[str]) -> list[Document]:
    """Every file that ``sources`` name: files, folders with their sub-folders, ``-`` for standard input."""
    if list(sources).count("-") > 1:
        raise UsageError("-f - stands twice; standard input can be read once")
    documents = [document for source in sources for document in _read(source)]
    if not documents:
        raise CliError(f"no file ending in {', '.join(SUFFIXES)} in {', '.join(sources)}; nothing to apply")
    return documents


def files_in(folder: Path) -> list[Path]:
    """The configuration files below a folder, sorted; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _read(source: str) -> Iterable[Document]:
    if source == "-":
        return [Document(path="-", text=_decode(sys.stdin.buffer.read(), "standard input"))]
    path = Path(source)
    if path.is_dir():
        return [_document(file) for file in files_in(path)]
    return [_document(path)]


def _document(path: Path) -> Document:
    try:
        return Document(path=str(path), text=_decode(path.read_bytes(), str(path)))
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from error


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CliError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
