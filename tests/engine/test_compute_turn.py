"""Engines on one device take turns."""

from __future__ import annotations

import threading

import pytest

from inferd.engine.compute_turn import PATIENCE_S, ComputeTurn
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


@pytest.mark.parametrize("patient", [TrafficClass.DEFAULT, TrafficClass.BATCH])
def test_an_engine_that_keeps_asking_with_priority_does_not_starve_another(patient):
    now_s = 0.0
    turn, held, go = ComputeTurn(lambda: now_s), threading.Event(), threading.Event()
    order: list[TrafficClass] = []

    def hold():
        with turn.take(TrafficClass.PRIORITY):
            held.set()
            go.wait()

    def ask(traffic_class):
        with turn.take(traffic_class):
            order.append(traffic_class)

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    held.wait()
    for traffic_class, wait_s in ((patient, PATIENCE_S[patient]), (TrafficClass.PRIORITY, 0.0)):
        threads.append(threading.Thread(target=ask, args=(traffic_class,)))
        threads[-1].start()
        while len(turn._queue) < len(threads) - 1:
            pass
        now_s += wait_s
    go.set()
    for thread in threads:
        thread.join()
    assert order == [patient, TrafficClass.PRIORITY]
