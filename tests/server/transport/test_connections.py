"""Choice of the connection that is closed when too many are open."""

from __future__ import annotations

import pytest

from inferd.server.transport.connections import Connections


class FakeConnection:
    is_closed = False
    is_cut = False

    def close(self) -> None:
        self.is_closed = True

    def cut(self) -> None:
        self.is_cut = True


def opened(connections: Connections) -> FakeConnection:
    connection = FakeConnection()
    connections.waits(connection)
    connections.opened(connection)
    return connection


def test_connection_above_the_limit_closes_the_one_that_has_waited_longest():
    connections = Connections(max_open=3)
    first, second, third = (opened(connections) for _ in range(3))
    connections.busy(first)
    connections.waits(first)
    connections.busy(second)
    fourth = opened(connections)
    assert [one for one in (first, second, third, fourth) if one.is_closed] == [third]
    assert len(connections) == 3


def test_new_connection_is_closed_if_all_others_serve_requests():
    connections = Connections(max_open=2)
    for connection in (old := [opened(connections) for _ in range(2)]):
        connections.busy(connection)
    newcomer = opened(connections)
    assert newcomer.is_closed
    assert not any(connection.is_closed for connection in old)


@pytest.mark.parametrize("n_floods", [1, 5])
def test_idle_connections_above_the_limit_never_close_one_with_a_request(n_floods):
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


def test_unread_bytes_above_the_limit_cut_the_connection_with_most():
    connections = Connections(max_unread_bytes=100)
    first, second, third, fourth = (opened(connections) for _ in range(4))
    connections.stalls(first, 40)
    connections.stalls(second, 50)
    connections.flows(first)
    connections.stalls(third, 45)
    assert not any(one.is_cut for one in (first, second, third))
    connections.stalls(fourth, 10)
    assert [one for one in (first, second, third, fourth) if one.is_cut] == [second]
    connections.closed(third)
    connections.stalls(first, 90)
    assert not first.is_cut


def test_single_unread_answer_above_the_limit_is_cut_only_beside_another():
    connections = Connections(max_unread_bytes=100)
    one, another = opened(connections), opened(connections)
    connections.stalls(one, 1000)
    assert not one.is_cut
    connections.stalls(another, 10)
    assert one.is_cut
    assert not another.is_cut
