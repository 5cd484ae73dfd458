"""The queue's rules as a state machine: whatever happens, no key is lost and none runs twice at once."""

from __future__ import annotations

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from triton_operator.controllers.schedule import (
    CHANGED_BACKOFF_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Key,
    Schedule,
)

KEYS = [Key("InferenceModel", "vision", name) for name in "abc"]
keys = strategies.sampled_from(KEYS)
seconds = strategies.floats(min_value=0, max_value=400, allow_nan=False)


class ScheduleMachine(RuleBasedStateMachine):
    """`asked` holds the keys that must run as soon as they can, `timers` when others will."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(lambda: 0.5)
        self.now = 0.0
        self.running: set[Key] = set()
        self.asked: set[Key] = set()
        self.timers: dict[Key, float] = {}

    def set_timer(self, key: Key, due: float) -> None:
        self.timers[key] = min(due, self.timers.get(key, due))

    def ready(self) -> set[Key]:
        for key in [key for key, due in self.timers.items() if due <= self.now]:
            del self.timers[key]
            self.asked.add(key)
        return self.asked - self.running

    @rule(key=keys)
    def add(self, key: Key) -> None:
        self.schedule.add(key, now=self.now)
        self.asked.add(key)

    @rule(key=keys, after=seconds)
    def add_after(self, key: Key, after: float) -> None:
        self.schedule.add_at(key, due=self.now + after)
        self.set_timer(key, self.now + after)

    @rule(passed=seconds)
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @rule()
    def take(self) -> None:
        taken, ready = self.schedule.take(now=self.now), self.ready()
        if taken is None:
            assert not ready
            return
        key, waited = taken
        assert key in ready
        assert 0 <= waited <= self.now
        self.running.add(key)
        self.asked.remove(key)

    @precondition(lambda self: self.running)
    @rule(data=strategies.data(), again=strategies.none() | seconds)
    def succeed(self, data: strategies.DataObject, again: float | None) -> None:
        key = data.draw(strategies.sampled_from(sorted(self.running, key=str)))
        self.running.remove(key)
        self.schedule.succeeded(key, now=self.now, again_after=again)
        if again is not None:
            self.set_timer(key, self.now + again)
        assert self.schedule.failures(key) == 0

    @precondition(lambda self: self.running)
    @rule(data=strategies.data())
    def fail(self, data: strategies.DataObject) -> None:
        key = data.draw(strategies.sampled_from(sorted(self.running, key=str)))
        self.running.remove(key)
        pause = self.schedule.failed(key, now=self.now)
        assert 0 < pause <= (CHANGED_BACKOFF_SECONDS if key in self.asked else LONGEST_BACKOFF_SECONDS)
        self.asked.discard(key)
        self.set_timer(key, self.now + pause)

    @invariant()
    def no_key_runs_twice_and_no_timer_is_forgotten(self) -> None:
        assert self.schedule.running == self.running
        assert self.schedule.depth <= len(KEYS)
        assert self.schedule.next_due() == min(self.timers.values(), default=None)

    def teardown(self) -> None:
        """Run in the end everything that was asked for."""
        for key in sorted(self.running, key=str):
            self.schedule.succeeded(key, now=self.now)
        self.running.clear()
        self.now += 1000
        left = self.ready()
        while taken := self.schedule.take(now=self.now):
            left.remove(taken[0])
            self.schedule.succeeded(taken[0], now=self.now)
        assert not left
        assert self.schedule.next_due() is None


ScheduleMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSchedule = ScheduleMachine.TestCase


def test_backoff_doubles_up_to_five_minutes_and_starts_over_after_a_success() -> None:
    schedule, key, pauses = Schedule(lambda: 1.0), KEYS[0], []
    now = 0.0
    for _ in range(12):
        schedule.add(key, now=now)
        assert schedule.take(now=now)
        pauses.append(schedule.failed(key, now=now))
        now += pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert schedule.take(now=now)
    schedule.succeeded(key, now=now)
    schedule.add(key, now=now)
    assert schedule.take(now=now)
    assert schedule.failed(key, now=now) == 0.5


def test_jitter_never_takes_more_than_half_of_a_backoff() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.add(KEYS[0], now=0)
    assert schedule.take(now=0)
    assert schedule.failed(KEYS[0], now=0) == 0.25


def test_keys_are_taken_in_the_order_of_their_arrival() -> None:
    schedule = Schedule(lambda: 0.0)
    for key in (KEYS[2], KEYS[0], KEYS[1], KEYS[2]):
        schedule.add(key, now=0)
    assert [schedule.take(now=1) for _ in range(4)] == [(KEYS[2], 1), (KEYS[0], 1), (KEYS[1], 1), None]


def test_earlier_of_two_timers_stays() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.add_at(KEYS[0], due=10)
    schedule.add_at(KEYS[0], due=20)
    assert schedule.next_due() == 10
    schedule.add_at(KEYS[0], due=5)
    assert schedule.next_due() == 5
    assert schedule.take(now=5) == (KEYS[0], 0)
    assert schedule.next_due() is None
