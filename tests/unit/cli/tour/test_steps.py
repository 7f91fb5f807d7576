"""The parts of the tour that need no mesh: bounds, what a stranger sees, how answers are read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from retia.cli.tour import outside, shop
from retia.cli.tour.client import Answer
from retia.cli.tour.errors import Disproved, expect
from retia.cli.tour.stage import expected_instances
from retia.cli.tour.steps import STEPS, bounds


@pytest.mark.parametrize(
    ("calls", "share", "low", "high"), [(400, 0.1, 16, 64), (200, 0.5, 72, 128), (100, 0.0, 0, 0)]
)
def test_bounds_are_four_standard_deviations(calls: int, share: float, low: int, high: int) -> None:
    assert bounds(calls, share) == (low, high)


def test_the_shop_has_its_files_and_eleven_programs() -> None:
    assert shop.mesh_file().is_file()
    assert expected_instances(shop.mesh_file()) == 11


def test_every_step_has_a_title_of_its_own() -> None:
    assert len({step.title for step in STEPS}) == len(STEPS)


def test_what_is_expected_and_not_seen_is_said() -> None:
    expect(True, "fine")
    with pytest.raises(Disproved, match="v2 took 90"):
        expect(False, "v2 took 90 of 100")


def test_an_answer_without_a_body_of_json_is_empty() -> None:
    assert Answer(200, "[1]", 0.1).json() == {}
    assert Answer(200, "<html>", 0.1).json() == {}
    assert str(Answer(0, "", 0.1, error="refused")) == "no answer (refused)"


@pytest.fixture
def talker() -> Iterator[tuple[socket.socket, list[bytes]]]:
    """A listener that answers every connection with the bytes in a list, or closes at once."""
    answers: list[bytes] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    if answers:
                        connection.sendall(answers[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener, answers
        listener.shutdown(socket.SHUT_RDWR)


def test_a_stranger_tells_an_answer_from_a_closed_connection(
    talker: tuple[socket.socket, list[bytes]],
) -> None:
    listener, answers = talker
    port = listener.getsockname()[1]
    assert outside.plain_call("127.0.0.1", port).error == "closed"
    answers.append(b"HTTP/1.1 404 Not Found\r\nserver: shop-reviews\r\ncontent-length: 0\r\n\r\n")
    seen = outside.plain_call("127.0.0.1", port)
    assert (seen.status, seen.headers["server"]) == (404, "shop-reviews")
    answers[0] = b"220 mail ready\r\n"
    assert outside.plain_call("127.0.0.1", port).error == "no HTTP"


def test_listening_sockets_are_found_in_the_kernels_table(
    talker: tuple[socket.socket, list[bytes]],
) -> None:
    port = talker[0].getsockname()[1]
    assert outside.listens("127.0.0.1", port)
    assert not outside.listens("127.0.0.2", port)


def test_a_dual_stack_listener_on_a_mapped_address_is_found() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        assert outside.listens("127.0.0.1", listener.getsockname()[1])
