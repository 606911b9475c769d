"""Engines on one device take turns."""

from __future__ import annotations

import threading

from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.messages import TrafficClass


def test_one_at_a_time_and_the_higher_class_first():
    turn, order, held, go = ComputeTurn(), [], threading.Event(), threading.Event()

    def hold():
        with turn.take(TrafficClass.BATCH):
            held.set()
            go.wait()
            order.append("holder")

    def ask(traffic_class):
        with turn.take(traffic_class):
            order.append(traffic_class)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    askers = []
    for traffic_class in (TrafficClass.BATCH, TrafficClass.DEFAULT, TrafficClass.PRIORITY):
        askers.append(threading.Thread(target=ask, args=(traffic_class,)))
        askers[-1].start()
        while len(turn._queue) < len(askers):
            pass
    go.set()
    for thread in (holder, *askers):
        thread.join()
    assert order == ["holder", TrafficClass.PRIORITY, TrafficClass.DEFAULT, TrafficClass.BATCH]


def test_a_step_that_raises_gives_its_turn_back():
    turn = ComputeTurn()
    try:
        with turn.take(TrafficClass.DEFAULT):
            raise ValueError
    except ValueError:
        pass
    with turn.take(TrafficClass.DEFAULT):
        pass
