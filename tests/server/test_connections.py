"""Who goes when too many connections are open."""

from __future__ import annotations

import pytest

from inferd.server.connections import Connections


class FakeConnection:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def opened(connections: Connections) -> FakeConnection:
    connection = FakeConnection()
    connections.waits(connection)
    connections.opened(connection)
    return connection


def test_the_one_that_has_waited_longest_makes_room():
    connections = Connections(max_open=3)
    first, second, third = (opened(connections) for _ in range(3))
    connections.busy(first)
    connections.waits(first)
    connections.busy(second)
    fourth = opened(connections)
    assert [one.is_closed for one in (first, second, third, fourth)] == [False, False, True, False]
    assert len(connections) == 3


def test_when_all_are_at_work_the_newcomer_goes():
    connections = Connections(max_open=2)
    for connection in (old := [opened(connections) for _ in range(2)]):
        connections.busy(connection)
    newcomer = opened(connections)
    assert newcomer.is_closed
    assert not any(connection.is_closed for connection in old)


@pytest.mark.parametrize("n_floods", [1, 5])
def test_a_flood_of_idle_connections_never_ends_a_request(n_floods):
    connections = Connections(max_open=10)
    working = [opened(connections) for _ in range(5)]
    for connection in working:
        connections.busy(connection)
    flood = [opened(connections) for _ in range(100 * n_floods)]
    assert not any(connection.is_closed for connection in working)
    assert sum(not connection.is_closed for connection in flood) == 5
    for connection in working:
        connections.closed(connection)
    assert len(connections) == 5
