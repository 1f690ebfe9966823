"""The loop of step-up with a vendor that does whatever a vendor may do."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatekeeper.policy.lifecycles import CaseEvent, CaseState
from gatekeeper.policy.words import Assurance
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.cases_schema import Change, Opening, TryRules
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch
from gatekeeper.telemetry import Metrics
from gatekeeper.verification.desk import CaseDesk
from gatekeeper.verification.flow import CaseFlow, WebhookOutcome
from gatekeeper.verification.links import LinkClaims, LinkSigner
from gatekeeper.verification.service import Verification
from gatekeeper.verification.vendor import (
    StartRequest,
    Vendor,
    VendorError,
    VendorEvent,
    VendorSession,
    VendorState,
    WebhookRefusal,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

AT = 1_790_000_000.0
RULES = TryRules(pending_s=86_400.0, valid_s=None, max_tries=1_000, period_s=86_400.0)
IAL1 = Assurance.IAL1


@dataclass
class Clinic:
    """A vendor that is told what to say."""

    name: str = "clinic"
    page_origin: str = "https://clinic.example"
    sessions: dict[str, VendorSession] = field(default_factory=dict)
    dead: bool = False
    asked: int = 0
    idempotent: bool = True
    """Some vendors begin a second session for the same key."""
    _begun: dict[str, str] = field(default_factory=dict)

    async def start(self, request: StartRequest) -> VendorSession:
        """Begin a session."""
        await self._think()
        key = request.idempotency_key
        if not self.idempotent or key not in self._begun:
            reference = f"s{len(self.sessions)}"
            url = f"{self.page_origin}/{reference}"
            self._begun[key] = reference
            self.sessions[reference] = VendorSession(
                reference, VendorState.WAITING, request.assurance, url
            )
        return self.sessions[self._begun[key]]

    async def fetch(self, reference: str) -> VendorSession | None:
        """Say how a session stands."""
        await self._think()
        return self.sessions.get(reference)

    def read_webhook(
        self, headers: Mapping[str, str], body: bytes, now_s: float
    ) -> VendorEvent | WebhookRefusal:
        """Believe everything, so that only what is asked can protect."""
        event_id, _, reference = body.decode().partition(" ")
        return VendorEvent(event_id, reference)

    def put(self, reference: str, state: VendorState, **more: Any) -> None:
        """Change what is said of a session."""
        url = f"{self.page_origin}/{reference}" if state is VendorState.WAITING else None
        self.sessions[reference] = replace(self.sessions[reference], state=state, url=url, **more)

    async def _think(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.dead:
            raise VendorError("gone")


class Node:
    """One gate's share of the loop."""

    def __init__(self, records: Records, vendor: Vendor | None) -> None:
        self.records = records
        self.refreshed = 0
        self.metrics = Metrics()
        ids = itertools.count()
        self.flow = CaseFlow(
            Cases(records.database),
            vendor,
            RULES,
            new_case_id=lambda: f"case_{next(ids)}",
            refresh=self._refresh,
            metrics=self.metrics,
        )

    async def _refresh(self, _: float) -> None:
        self.refreshed += 1

    async def open(self, link: str = "dec_1", at: float = AT) -> Any:
        """Open a link of ``acme``."""
        return await self.flow.open(LinkClaims("acme", IAL1, link, 0), str, at)

    async def assurance(self) -> Assurance:
        """Return what ``acme`` has proven."""
        row = await self.records.account("acme")
        assert row is not None
        return row.assurance


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Open records with one account."""
    opened = await Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    await opened.upsert_account(AccountPatch("acme", {}), at=AT)
    yield opened
    await opened.close()


async def test_a_vendor_without_idempotency(records: Records) -> None:
    """Of two sessions begun at once for one try, both openers go on with the same."""
    clinic = Clinic(idempotent=False)
    node = Node(records, clinic)
    found = await asyncio.gather(*(node.open() for _ in range(5)))
    assert len(clinic.sessions) == 5
    assert len({each.url for each in found}) == 1
    assert len({each.case.reference for each in found}) == 1


async def test_a_page_that_is_good_once_is_asked_for_anew(records: Records) -> None:
    """Coming back, the caller is sent to the page that the vendor names now."""
    clinic = Clinic()
    node = Node(records, clinic)
    await node.open()
    clinic.sessions["s0"] = replace(clinic.sessions["s0"], url="https://clinic.example/fresh")
    assert (await node.open()).url == "https://clinic.example/fresh"


async def test_while_the_vendor_works_there_is_no_page(records: Records) -> None:
    """A caller who comes back waits on our page."""
    clinic = Clinic()
    node = Node(records, clinic)
    await node.open()
    clinic.put("s0", VendorState.PROCESSING)
    found = await node.open()
    assert (found.outcome, found.url) == (Opening.UNDER_WAY, None)


async def test_a_case_of_another_vendor_is_left_alone(records: Records) -> None:
    """After a change of vendor, an open case waits for an admin or its end; nobody is asked."""
    await Node(records, Clinic()).open()
    other = Clinic("other")
    node = Node(records, other)
    found = await node.open("dec_2")
    assert (found.outcome, found.url) == (Opening.UNDER_WAY, None)
    assert await node.flow.take_webhook({}, b"e1 s0", AT) is WebhookOutcome.UNKNOWN
    assert await node.flow.reconcile(AT + 70) == 1
    assert await node.flow.reconcile(AT + 3_600) == 0
    assert await node.flow.reconcile(AT + RULES.pending_s) == 1
    (case,) = await node.flow.cases.page()
    assert (case.state, other.asked) == (CaseState.EXPIRED, 0)


async def test_no_vendor_no_webhook(records: Records) -> None:
    """There is nobody who could ring."""
    node = Node(records, None)
    assert await node.flow.take_webhook({}, b"e1 s0", AT) is WebhookOutcome.UNKNOWN


async def test_cases_without_a_vendor_lapse(records: Records) -> None:
    """What no admin decides in time is over, and may be opened anew."""
    node = Node(records, None)
    await node.open()
    assert await node.flow.reconcile(AT + RULES.pending_s - 1) == 0
    assert await node.flow.reconcile(AT + RULES.pending_s) == 1
    (case,) = await node.flow.cases.page()
    assert case.state is CaseState.EXPIRED
    assert (await node.open("dec_2")).outcome is Opening.STARTED


async def test_a_dead_vendor_delays_the_end_but_not_for_ever(records: Records) -> None:
    """A day after its end, a try lapses even if nobody can say how it went."""
    clinic = Clinic()
    node = Node(records, clinic)
    await node.open()
    clinic.dead = True
    for at, state in (
        (AT + RULES.pending_s + 3_600, CaseState.PENDING),
        (AT + RULES.pending_s + 90_000, CaseState.EXPIRED),
    ):
        assert await node.flow.reconcile(at) == 1
        (case,) = await node.flow.cases.page()
        assert case.state is state


async def test_one_of_many_nodes_asks(records: Records) -> None:
    """Five gates that look at once ask the vendor once."""
    clinic = Clinic()
    nodes = [Node(records, clinic) for _ in range(5)]
    await nodes[0].open()
    clinic.asked = 0
    await asyncio.gather(*(node.flow.reconcile(AT + 60) for node in nodes))
    assert clinic.asked == 1


async def test_h39_tenfold_asks_the_vendor_once(records: Records) -> None:
    """Copies of one webhook wait for the first, and then know."""
    clinic = Clinic()
    node = Node(records, clinic)
    await node.open()
    clinic.put("s0", VendorState.APPROVED)
    clinic.asked = 0
    found = await asyncio.gather(*(node.flow.take_webhook({}, b"e1 s0", AT) for _ in range(10)))
    assert sorted(found) == [WebhookOutcome.APPLIED] + [WebhookOutcome.DUPLICATE] * 9
    assert (clinic.asked, node.refreshed) == (1, 1)


async def test_h39_a_webhook_during_the_first_opening(records: Records) -> None:
    """Before the vendor's name is kept, a webhook of it is of no case; it is made up for later."""
    clinic = Clinic()
    node = Node(records, clinic)
    assert await node.flow.take_webhook({}, b"e1 s0", AT) is WebhookOutcome.UNKNOWN
    await node.open()
    clinic.put("s0", VendorState.APPROVED)
    assert await node.flow.take_webhook({}, b"e1 s0", AT) is WebhookOutcome.APPLIED


async def test_who_is_told_verified_is_let_through_here(records: Records) -> None:
    """Another's webhook was faster, before or during the look: this node sees its work first."""
    clinic = Clinic()
    one, two = Node(records, clinic), Node(records, clinic)
    await one.open()
    (pending,) = await one.flow.cases.page()
    await one.flow.look(pending, AT + 60)
    assert one.refreshed == 0
    clinic.put("s0", VendorState.APPROVED)
    assert await two.flow.take_webhook({}, b"e1 s0", AT + 60) is WebhookOutcome.APPLIED
    for case in (pending, *await one.flow.cases.page()):
        before = one.refreshed
        assert (await one.flow.look(case, AT + 120)).state is CaseState.VERIFIED
        assert one.refreshed == before + 1


async def test_a_try_that_was_overtaken(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another try began while this one was being started, the caller is asked to repeat."""
    node = Node(records, Clinic())

    async def other(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(Cases, "attach", other)
    with pytest.raises(VendorError, match="meanwhile"):
        await node.open()


async def test_pages_ask_the_vendor_now_and_then(records: Records) -> None:
    """A page that is reloaded ten times a second does not become ten questions."""
    clinic = Clinic()
    node = Node(records, clinic)
    await node.open()
    clinic.asked = 0
    (case,) = await node.flow.cases.page()
    for tenths in range(30):
        await node.flow.look(case, AT + tenths / 10)
    assert clinic.asked == 2
    for number in range(5_000):
        node.flow._asked_at[str(number)] = AT
    await node.flow.look(case, AT + 100)
    assert len(node.flow._asked_at) == 1


async def test_the_watch_goes_on_through_failures(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that fail once do not end the look after cases; old deliveries are forgotten."""
    clinic = Clinic()
    links = LinkSigner(b"k" * 32, "https://gate", 60)

    async def refresh(_: float) -> None:
        pass

    made = Verification(
        Cases(records.database),
        clinic,
        RULES,
        links=links,
        support="",
        refresh=refresh,
        metrics=Metrics(),
    )
    rounds: list[float] = []
    done = asyncio.Event()
    forgotten: list[float] = []
    real_sleep = asyncio.sleep

    async def reconcile(at: float) -> int:
        rounds.append(at)
        if len(rounds) == 1:
            raise RecordsError("gone")
        if len(rounds) == 4:
            done.set()
        return 0

    async def forget(at: float) -> None:
        forgotten.append(at)

    monkeypatch.setattr(made.flow, "reconcile", reconcile)
    monkeypatch.setattr(made.flow, "forget", forget)
    monkeypatch.setattr("gatekeeper.verification.service._RECONCILE_S", 0.0)
    clock = itertools.count(AT, 1_000.0)
    task = asyncio.create_task(made.run(lambda: next(clock), lambda: 0.0))
    async with asyncio.timeout(10):
        await done.wait()
    await real_sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(rounds) >= 4
    assert forgotten == [AT + 1_000.0]


class Play:
    """One account, one vendor, one admin, and whatever may happen to them."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.clinic = Clinic()
        self.node = Node(records, self.clinic)
        self.desk = CaseDesk(self.node.flow.cases, valid_s=None)
        self.approved: set[str] = set()
        """Sessions that the vendor ever approved, and ``admin`` if an admin did."""
        self.at, self.link = AT, 0

    @property
    def last(self) -> str:
        """The vendor's latest session."""
        return f"s{len(self.clinic.sessions) - 1}"

    async def case_id(self) -> str:
        """Return the one case, if there is one."""
        cases = await self.node.flow.cases.page()
        return cases[0].id if cases else "none"

    async def say(self, state: VendorState) -> None:
        """Let the vendor change its mind about its latest session."""
        if self.clinic.sessions:
            self.clinic.put(self.last, state)
            self.approved |= {self.last} if state is VendorState.APPROVED else set()

    async def open(self, *, anew: bool) -> None:
        """Open a new link, or the last one again."""
        self.link += anew
        if not self.clinic.dead:
            await self.node.open(f"dec_{self.link}", self.at)

    async def look(self) -> None:
        """Come back from the vendor."""
        for case in await self.node.flow.cases.page():
            await self.node.flow.look(case, self.at)

    async def ring(self, reference: str) -> None:
        """Let a webhook come."""
        await self.node.flow.take_webhook({}, f"e{self.at} {reference}".encode(), self.at)

    async def live(self, *, dead: bool) -> None:
        """Let the vendor die, or come back."""
        self.clinic.dead = dead

    async def withdraw(self) -> None:
        """Take the assurance away by hand."""
        patch = AccountPatch("acme", {"assurance": Assurance.NONE})
        await self.records.upsert_account(patch, at=self.at)

    async def decide(self, decision: str) -> None:
        """Let an admin decide."""
        verdict = getattr(self.desk, decision)
        change, _ = await verdict(await self.case_id(), actor="a", reason="r", at=self.at)
        if decision == "approve" and change is Change.DONE:
            self.approved.add("admin")

    async def step(self, each: str) -> None:
        """Let one thing happen."""
        self.at += 100.0
        ways: dict[str, Any] = {
            "open": lambda: self.open(anew=True),
            "open again": lambda: self.open(anew=False),
            "look": self.look,
            "webhook": lambda: self.ring(self.last),
            "old webhook": lambda: self.ring("s0"),
            "late": lambda: self.node.flow.reconcile(self.at),
            "die": lambda: self.live(dead=True),
            "revive": lambda: self.live(dead=False),
            "withdraw": self.withdraw,
            **{name: lambda name=name: self.decide(name) for name in DECISIONS},
            **{state.value: lambda state=state: self.say(state) for state in VendorState},
        }
        await ways[each]()

    async def check(self) -> None:
        """Hold what has happened against what may."""
        for case in await self.node.flow.cases.page():
            if case.state is CaseState.VERIFIED:
                assert case.reference in self.approved or "admin" in self.approved
            events = [step.event for step in await self.node.flow.cases.history(case.id)]
            begun = 1 + events.count(CaseEvent.RESTARTED)
            assert events.count(CaseEvent.APPROVED) <= begun
        if await self.node.assurance() is not Assurance.NONE:
            assert self.approved


DECISIONS = ("approve", "decline", "restart")
STEPS = (
    *("open", "open again", "look", "webhook", "old webhook", "late", "die", "revive"),
    *("withdraw", *DECISIONS, *(state.value for state in VendorState)),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=14))
@example(["open", "approved", "webhook", "withdraw", "open", "late", "old webhook"])
@example(["open", "declined", "webhook", "approved", "webhook", "look", "late"])
def test_h39_no_order_of_things_grants_what_nobody_approved(steps: list[str]) -> None:
    """Whatever happens in whatever order: who is verified was approved, once, in this very try."""

    async def play() -> None:
        records = await Records.open("sqlite:///:memory:")
        try:
            await records.upsert_account(AccountPatch("acme", {}), at=AT)
            scene = Play(records)
            for each in steps:
                await scene.step(each)
                await scene.check()
        finally:
            await records.close()

    asyncio.run(play())
