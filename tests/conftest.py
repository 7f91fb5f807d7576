"""For all tests: a privileged one runs, or is skipped with the reason, or fails where it must run."""

from __future__ import annotations

import pytest

from tests.support.privileges import cannot_run, missing_privilege


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("privileged") is None:
        return
    why = missing_privilege()
    if why:
        cannot_run(why)
