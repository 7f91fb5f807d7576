"""For all tests: a privileged one runs, or is skipped with the reason, or fails where it must run."""

from __future__ import annotations

import pytest

from tests.support.privileges import missing_privilege, must_run


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("privileged") is None:
        return
    why = missing_privilege()
    if why and must_run():
        pytest.fail(f"RETIA_REQUIRE_PRIVILEGED=1, but this test cannot run: {why}", pytrace=False)
    if why:
        pytest.skip(why)
