"""Under any load all shares of compute together are no more than the time that the device was busy (BILLING R14)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.messages import TrafficClass
from tests.engine.driver import Driver, request
from tests.fakes import Failure, FakeClock, FakeRunner

CLASSES = list(TrafficClass)
SPECS = st.lists(
    st.tuples(
        st.integers(1, 60),  # tokens of the prompt
        st.integers(1, 12),  # of the completion
        st.sampled_from(CLASSES),
        st.none() | st.integers(1, 40),  # the limit of its compute, in ms
        st.integers(0, 12),  # the step before which it comes
        st.none() | st.integers(1, 8),  # after so many steps more its caller goes away
    ),
    min_size=1,
    max_size=10,
)


@given(SPECS, st.floats(0.001, 20), st.lists(st.integers(0, 30), max_size=3), st.integers(0, 5))
def test_all_shares_together_never_exceed_the_busy_time(specs, step_ms, failing_steps, idle_ms) -> None:
    """R14: of every class, preempted, failed and begun anew, cut off, given up, with waiting in between. Each is
    rounded once, so it says at most half a millisecond more than its share."""
    clock = FakeClock()
    # Few streams, so that some wait and some lose theirs.
    driver = Driver(FakeRunner(clock=clock, step_ms=step_ms, max_rows=32, max_sequences=3, max_running=2), clock)
    busy_ns = step = 0
    while step <= 12 or driver.core.has_work:
        for number, (length, n, traffic_class, max_compute_ms, begin, patience) in enumerate(specs):
            name = str(number)
            if step == begin:
                one = request(name, bytes([number + 1]) * length, n)
                driver.add(replace(one, traffic_class=traffic_class, max_compute_ms=max_compute_ms))
            elif patience is not None and step == begin + patience:
                driver.abort(name)
        if step in failing_steps:
            driver.runner.failures.append(Failure(-3))
        clock.advance_ms(idle_ms)  # nobody's: they wait
        began_ns = clock.now_ns
        driver.step()
        busy_ns += clock.now_ns - began_ns
        step += 1
    finals = [driver.final(str(number)) for number in range(len(specs))]
    assert sum(final.compute_ns for final in finals) <= busy_ns
    for final, (_, _, _, max_compute_ms, _, _) in zip(finals, specs, strict=True):
        assert abs(2 * final.usage.compute_ms * 10**6 - 2 * final.compute_ns) <= 10**6
        assert max_compute_ms is None or final.usage.compute_ms <= max_compute_ms
