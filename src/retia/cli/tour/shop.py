"""Where the sample shop is: beside the sources, or in the installed package."""

from __future__ import annotations

from pathlib import Path

import retia
from retia.cli.tour.errors import TourError


def folder() -> Path:
    """The folder with ``retia.yaml``, ``config`` and ``services``."""
    package = Path(retia.__file__).resolve().parent
    for candidate in (package.parent.parent / "samples" / "shop", package / "_samples" / "shop"):
        if (candidate / "retia.yaml").is_file():
            return candidate
    # An editable installation puts added files beside the package's link, not into its folder.
    import importlib.metadata

    for file in importlib.metadata.files("retia") or ():
        if file.parts[-3:] == ("_samples", "shop", "retia.yaml"):
            return Path(str(file.locate())).parent
    raise TourError("the sample shop is not installed; run this from a checkout, or install the package anew")


def mesh_file() -> Path:
    return folder() / "retia.yaml"


def config(name: str) -> Path:
    """A file of the shop's configuration: ``routes`` or ``steps/canary``."""
    return folder() / "config" / f"{name}.yaml"
