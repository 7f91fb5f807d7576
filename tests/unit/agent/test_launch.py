"""What a launch is made into."""

from __future__ import annotations

import pytest

from retia.agent.launch import launch_labels
from retia.api.local import Launch


@pytest.mark.parametrize(
    ("service", "given", "labels"),
    [
        ("reviews", {}, {"app": "reviews"}),
        ("reviews", {"version": "v2"}, {"app": "reviews", "version": "v2"}),
        ("reviews", {"app": "books"}, {"app": "books"}),
        ("", {}, {}),
    ],
)
def test_a_service_is_the_label_app_unless_its_user_gave_one(
    service: str, given: dict[str, str], labels: dict[str, str]
) -> None:
    assert launch_labels(Launch(service=service, labels=given)) == labels
