"""Writes the pages of the reference that are made from code.

* ``commands.md``: every command, from the command line's own descriptions;
* ``configuration.md``: every kind with its fields, from the schemas;
* ``findings.md``: every finding, from the catalogue; ``replies.md``: every reply of a proxy.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from retia.analysis import reference as findings
from retia.cli.main import app
from retia.config import reference as configuration

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
HEAD = """# Commands

Made from the command line itself by `make docs`; do not edit. Data goes to stdout, messages to stderr. Exit
status: 0 done, 1 failed (or, for `check`, something is wrong), 2 wrong usage, 130 interrupted; `retia run`
has the exit status of the program that it ran. `retia --home DIR` or the variable `RETIA_HOME` chooses the
state folder, `~/.retia` otherwise.
"""


# Some versions of Typer bring their own copy of click, so commands are told from groups by what they can do.
def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All commands below a group, in the order in which they are listed."""
    context = group.context_class(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, f"{path} {name}")
        elif command is not None and not command.hidden:
            yield f"{path} {name}", command


def section(path: str, command: Any) -> str:
    context = command.context_class(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b")
    lines = [f"## {path}", "", *text.strip().splitlines(), "", "```sh", usage, "```"]
    rows = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) and record[0] != "--help"
    ]
    rows = [(name, " ".join(what.split())) for name, what in rows if "--help" not in name]
    if rows:
        lines += ["", "| option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(_bare(name))}` | {_cell(what)} |" for name, what in rows]
    if examples.strip():
        shown = [line.strip() for line in examples.strip().splitlines()[1:]]
        lines += ["", "Examples:", "", "```sh", *shown, "```"]
    return "\n".join(lines) + "\n"


def _bare(name: str) -> str:
    """An option without the name of its Python type, which says nothing to its user."""
    return re.sub(r" <(?:str|int|int range|path|list\[str\])>$", "", name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands_page() -> str:
    sections = [section(path, command) for path, command in commands(typer.main.get_command(app), "retia")]
    return "\n".join([HEAD, *sections])


def main() -> None:
    pages = {
        "commands.md": commands_page(),
        "configuration.md": configuration.page(),
        "findings.md": findings.page(),
        "replies.md": findings.replies_page(),
    }
    for name, text in pages.items():
        changed = not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != text
        (REFERENCE / name).write_text(text)
        print(f"docs/reference/{name}: {'written anew' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
