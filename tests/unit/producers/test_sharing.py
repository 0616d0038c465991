from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from producers.sharing import BUCKETS, Lease, bucket_of, plan, share
from schemas.names import DigisosId

TTL_MS = 10_000


def leases(**held: tuple[str | None, int, int]) -> list[Lease]:
    """Return leases by bucket: holder, token, expires_ms; buckets are named ``a``, ``b``, ``c``."""
    return [Lease(bucket, *one) for bucket, one in held.items()]


def test_a_soknads_bucket_never_changes_and_is_one_of_them() -> None:
    found = {bucket_of(DigisosId.new()) for _ in range(200)}
    assert found <= set(BUCKETS)
    assert len(found) > 50
    assert bucket_of(DigisosId("3fa85f64-5717-4562-b3fc-2c963f66af07")) == "07"


@given(st.sets(st.text(min_size=1, max_size=4), min_size=1, max_size=9), st.integers(0, 300))
def test_shares_are_even_and_add_up(names: set[str], total: int) -> None:
    shares = [share(name, names, total) for name in names]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_one_that_is_alone_takes_everything_that_is_free_or_has_run_out() -> None:
    found = plan("jeg", leases(a=(None, 0, 0), b=("dod", 4, 99), c=("jeg", 1, 50)), ["jeg"], 100)
    assert [lease.bucket for lease in found.take] == ["a", "b"]
    assert found.keep == {"c": 1}
    assert not found.leave


def test_a_lease_that_lasts_is_nobody_elses() -> None:
    found = plan("jeg", leases(a=("andre", 4, 101), b=("andre", 4, 100)), ["jeg"], 100)
    assert [lease.bucket for lease in found.take] == ["b"]


def test_one_with_more_than_its_share_leaves_some() -> None:
    found = plan("a1", leases(a=("a1", 1, 500), b=("a1", 1, 500), c=("a1", 1, 500)), ["a1", "b2"], 100)
    assert found.leave == {"c"}
    assert found.keep == {"a": 1, "b": 1, "c": 1}  # until nothing of it is under way


def test_what_ran_out_and_was_taken_by_nobody_is_kept() -> None:
    assert plan("jeg", leases(a=("jeg", 3, 10)), ["jeg"], 100).keep == {"a": 3}


@dataclass
class Instance:
    """An instance as the shell makes it: what it believes, and until when on its own clock."""

    name: str
    believes: dict[str, int] = field(default_factory=dict)
    until_ms: int = 0


class SharingMachine(RuleBasedStateMachine):
    """Instances that come, pause, die and come back over one table. The database decides each change by comparing the token."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000
        self.table = {bucket: Lease(bucket, None, 0, 0) for bucket in BUCKETS[:16]}
        self.seen: dict[str, int] = {}
        self.instances: dict[str, Instance] = {}
        self.tokens: dict[str, int] = {}

    def live(self) -> list[str]:
        return [name for name, moment in self.seen.items() if moment > self.now - TTL_MS]

    @precondition(lambda self: len(self.instances) < 4)
    @rule()
    def join(self) -> None:
        name = f"i{len(self.seen)}"
        self.instances[name] = Instance(name)
        self.seen[name] = self.now

    @precondition(lambda self: self.instances)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.instances.pop(data.draw(st.sampled_from(sorted(self.instances))))

    @rule(ms=st.integers(1, 25_000))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @precondition(lambda self: self.instances)
    @rule(data=st.data(), late=st.integers(0, 12_000))
    def beat(self, data: st.DataObject, late: int) -> None:
        self.heartbeat(self.instances[data.draw(st.sampled_from(sorted(self.instances)))], late)

    def heartbeat(self, one: Instance, late: int) -> None:
        """One heartbeat, with ``late`` between the database's doing and the answer. Nothing is ever under way in this model."""
        asked = self.now
        self.seen[one.name] = self.now
        found = plan(one.name, self.table.values(), self.live(), self.now)
        believes: dict[str, int] = {}
        for bucket, token in found.keep.items():
            if bucket in found.leave:
                self.table[bucket] = Lease(bucket, None, token, 0)
            else:
                self.table[bucket] = Lease(bucket, one.name, token, self.now + TTL_MS)
                believes[bucket] = token
        for lease in found.take:
            self.table[lease.bucket] = Lease(lease.bucket, one.name, lease.token + 1, self.now + TTL_MS)
            believes[lease.bucket] = lease.token + 1
        self.now += late
        one.believes, one.until_ms = believes, asked + TTL_MS

    @invariant()
    def no_bucket_is_believed_by_two(self) -> None:
        believed = [bucket for one in self.instances.values() if self.now < one.until_ms for bucket in one.believes]
        assert len(believed) == len(set(believed))

    @invariant()
    def a_bucket_is_believed_with_its_present_token(self) -> None:
        for one in self.instances.values():
            if self.now < one.until_ms:
                assert all(self.table[bucket].token == token for bucket, token in one.believes.items())

    @invariant()
    def tokens_only_grow(self) -> None:
        now = {bucket: lease.token for bucket, lease in self.table.items()}
        assert all(now[bucket] >= token for bucket, token in self.tokens.items())
        self.tokens = now

    def teardown(self) -> None:
        """When everybody who lives has had some rounds, all buckets are held and the shares are even."""
        self.now += TTL_MS + 1
        for _ in range(3):
            for one in self.instances.values():
                self.heartbeat(one, 0)
        if self.instances:
            counts = [len(one.believes) for one in self.instances.values()]
            assert sum(counts) == len(self.table)
            assert max(counts) - min(counts) <= 1


TestSharing = SharingMachine.TestCase
TestSharing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
