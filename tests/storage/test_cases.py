"""Records of identity checks: each step once, never a grant too many, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, text
from support.postgres_server import running_postgres

from gatekeeper.policy.lifecycles import CaseEvent, CaseState
from gatekeeper.policy.words import Assurance
from gatekeeper.storage.cases import FIRST_CHECK_S, Cases
from gatekeeper.storage.cases_schema import (
    CASE_STEPS,
    CASES,
    VENDOR_EVENTS,
    CaseRow,
    Change,
    Finding,
    Opening,
    TryRules,
)
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import ACCOUNTS, AccountPatch, Position
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

AT = 1_790_000_000.0
DAY_S = 86_400.0
RULES = TryRules(pending_s=7 * DAY_S, valid_s=365 * DAY_S, max_tries=3, period_s=30 * DAY_S)
IAL1, IAL2 = Assurance.IAL1, Assurance.IAL2
PASSED = Finding(CaseEvent.APPROVED, "vendor:sandbox", "", IAL1)
FAILED = Finding(CaseEvent.DECLINED, "vendor:sandbox", "document_unreadable")
LAPSED = Finding(CaseEvent.LAPSED, "gatekeeper", "no_result")


@dataclass
class Book:
    """The records under test, with short words for what is done over and over."""

    records: Records
    cases: Cases
    ids: Iterator[str] = field(default_factory=lambda: (f"case_{n:03d}" for n in range(1, 1_000)))

    async def account(self, account_id: str = "acme", **fields: Any) -> None:
        """Put an account on record."""
        await self.records.upsert_account(AccountPatch(account_id, fields), at=AT)

    async def open(self, link: str = "dec_1", *, at: float = AT, **more: Any) -> Any:
        """Open a link of ``acme`` to ial1."""
        options: dict[str, Any] = {"account_id": "acme", "assurance": IAL1, "vendor": "sandbox"}
        options |= more
        account_id, assurance = options.pop("account_id"), options.pop("assurance")
        options.setdefault("rules", RULES)
        return await self.cases.open(
            account_id, assurance, link, case_id=next(self.ids), at=at, **options
        )

    async def begun(self, link: str = "dec_1", *, at: float = AT, **more: Any) -> CaseRow:
        """Begin a try, named vs_LINK by the vendor."""
        opening, case = await self.open(link, at=at, **more)
        assert opening is Opening.STARTED
        kept = await self.cases.attach(case, f"vs_{link}", at=at)
        assert kept is not None
        return kept

    async def end(self, case: CaseRow, finding: Finding, *, at: float = AT, **more: Any) -> Change:
        """Apply a finding."""
        options: dict[str, Any] = {"valid_s": RULES.valid_s, **more}
        return (await self.cases.apply(case.id, finding, at=at, **options))[0]

    async def assurance(self, account_id: str = "acme") -> tuple[Assurance, float | None]:
        """Return what an account has proven, and until when."""
        row = await self.records.account(account_id)
        assert row is not None
        return row.assurance, row.assurance_expires

    async def state(self, case: CaseRow) -> CaseState:
        """Return where a case stands now."""
        row = await self.cases.get(case.id)
        assert row is not None
        return row.state


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Start a real PostgreSQL, once."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Book]:
    """Open empty records with one account, on either database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'records.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    records = await Records.open(url)
    async with records.database.writing() as connection:
        for table in reversed(METADATA.sorted_tables):
            if table.name != "records_meta":
                await connection.execute(delete(table))
    made = Book(records, Cases(records.database))
    await made.account()
    yield made
    await records.close()


# --- opening ---


async def test_a_link_opened_twice_is_one_case(book: Book) -> None:
    """The first opening begins a try, the second finds it; so does another link meanwhile."""
    opening, first = await book.open()
    assert opening is Opening.STARTED
    assert first is not None
    assert (first.state, first.attempt, first.tries) == (CaseState.PENDING, 1, 1)
    assert first.expires_at == AT + RULES.pending_s
    assert first.next_check_at == AT + FIRST_CHECK_S
    for link in ("dec_1", "dec_2"):
        opening, again = await book.open(link, at=AT + 1)
        assert opening is Opening.UNDER_WAY
        assert again == first
    assert await book.cases.page() == (first,)


async def test_many_openings_at_once_are_one_case(book: Book) -> None:
    """Ten browsers, one try."""
    found = await asyncio.gather(*(book.open() for _ in range(10)))
    assert sorted(opening for opening, _ in found) == [Opening.STARTED] + [Opening.UNDER_WAY] * 9
    assert len({case.id for _, case in found}) == 1
    assert len(await book.cases.history(found[0][1].id)) == 1


async def test_each_level_has_a_case_of_its_own(book: Book) -> None:
    """A proof of ial1 does not answer a question for ial2; one of ial2 answers both."""
    case = await book.begun()
    assert await book.end(case, PASSED) is Change.DONE
    assert (await book.open("dec_2"))[0] is Opening.PROVEN
    higher = await book.begun("dec_3", assurance=IAL2)
    assert higher.id != case.id
    assert await book.end(higher, replace(PASSED, assurance=IAL2), at=AT + 5) is Change.DONE
    assert await book.assurance() == (IAL2, AT + 5 + 365 * DAY_S)


@pytest.mark.parametrize("who", ["nobody", "banned"])
async def test_h39_no_case_for_an_account_that_is_unknown_or_banned(book: Book, who: str) -> None:
    """A link alone grants nothing to an account that is not on record."""
    await book.account("banned", banned_until=AT + 10)
    assert await book.open(account_id=who) == (Opening.NOT_ELIGIBLE, None)
    assert await book.cases.page() == ()


async def test_a_new_try_needs_a_new_link_and_there_are_few(book: Book) -> None:
    """After a failure the same link ends; new ones restart the case, until none is left."""
    for number in (1, 2, 3):
        case = await book.begun(f"dec_{number}", at=AT + number)
        assert (case.attempt, case.tries) == (number, number)
        finding = FAILED if number % 2 else LAPSED
        assert await book.end(case, finding, at=AT + number) is Change.DONE
        assert (await book.open(f"dec_{number}", at=AT + number))[0] is Opening.ENDED
    assert (await book.open("dec_4", at=AT + 9))[0] is Opening.EXHAUSTED
    assert (await book.open("dec_4", at=AT + 9, assurance=IAL2))[0] is Opening.EXHAUSTED
    events = [step.event for step in await book.cases.history(case.id)]
    assert events.count(CaseEvent.RESTARTED) == 2
    later = await book.begun("dec_5", at=AT + 31 * DAY_S)  # a period later they count anew
    assert (later.attempt, later.tries) == (4, 1)


async def test_an_admin_restart_forgets_the_tries(book: Book) -> None:
    """After it any link opens the case again."""
    rules = replace(RULES, max_tries=1)
    case = await book.begun()
    await book.end(case, FAILED)
    assert (await book.open("dec_2", rules=rules))[0] is Opening.EXHAUSTED
    restart = Finding(CaseEvent.RESTARTED, "admin", "camera was broken")
    assert await book.end(case, restart) is Change.DONE
    assert await book.state(case) is CaseState.REQUIRED
    assert (await book.open("dec_1", rules=rules))[0] is Opening.STARTED


async def test_a_proof_that_the_account_lost_is_asked_for_again(book: Book) -> None:
    """An admin took the assurance away, or it ran out: the case begins anew."""
    case = await book.begun()
    await book.end(case, PASSED)
    await book.account(assurance=Assurance.NONE, assurance_expires=None)
    again = await book.begun("dec_2")
    await book.end(again, PASSED)
    after = await book.begun("dec_3", at=AT + 366 * DAY_S)
    assert after.id == case.id
    assert after.attempt == 3


# --- findings ---


async def test_case_and_account_change_together(book: Book) -> None:
    """An approval raises the account in the same write, and gates that follow see it."""
    case = await book.begun()
    before = (await book.records.changes_since(Position())).position
    assert await book.end(case, PASSED, at=AT + 5) is Change.DONE
    assert await book.assurance() == (IAL1, AT + 5 + 365 * DAY_S)
    (row,) = (await book.records.changes_since(before)).accounts
    assert row.assurance is IAL1
    steps = await book.cases.history(case.id)
    assert [(step.event, step.state, step.actor) for step in steps] == [
        (CaseEvent.APPROVED, CaseState.VERIFIED, "vendor:sandbox"),
        (CaseEvent.OPENED, CaseState.PENDING, "link"),
    ]


async def test_h39_a_crash_before_the_commit_leaves_nothing(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither case nor account nor the note of the delivery: the next delivery does it all."""
    case = await book.begun()
    real = Cases._note

    async def noted_then_gone(*arguments: Any) -> bool:
        await real(*arguments)
        raise asyncio.CancelledError

    monkeypatch.setattr(Cases, "_note", noted_then_gone)
    with pytest.raises(asyncio.CancelledError):
        await book.end(case, PASSED, delivery=("sandbox", "msg_1"))
    monkeypatch.undo()
    assert await book.state(case) is CaseState.PENDING
    assert await book.assurance() == (Assurance.NONE, None)
    assert not await book.cases.noted("sandbox", "msg_1")
    assert await book.end(case, PASSED, delivery=("sandbox", "msg_1")) is Change.DONE
    assert await book.assurance() == (IAL1, AT + 365 * DAY_S)


async def test_h39_a_delivery_tenfold_at_once_has_its_effect_once(book: Book) -> None:
    """One applies, nine are duplicates; the history has one step more."""
    case = await book.begun()
    deliveries = [book.end(case, PASSED, delivery=("sandbox", "msg_1")) for _ in range(10)]
    found = await asyncio.gather(*deliveries)
    assert sorted(found) == sorted([Change.DONE] + [Change.DUPLICATE] * 9)
    assert len(await book.cases.history(case.id)) == 2
    assert await book.cases.noted("sandbox", "msg_1")
    assert not await book.cases.noted("other", "msg_1")


async def test_h39_two_deliveries_at_once_grant_once(book: Book) -> None:
    """Ten different ones that say the same: the case moves once."""
    case = await book.begun()
    deliveries = [book.end(case, PASSED, delivery=("sandbox", f"msg_{n}")) for n in range(10)]
    found = await asyncio.gather(*deliveries)
    assert sorted(found) == sorted([Change.DONE] + [Change.NOT_NOW] * 9)


async def test_h39_what_is_learned_of_an_earlier_try_changes_nothing(book: Book) -> None:
    """A late approval of a try that was given up does not decide the next one."""
    first = await book.begun("dec_1")
    await book.end(first, LAPSED)
    second = await book.begun("dec_2")
    assert second.id == first.id
    assert await book.end(first, PASSED, reference="vs_dec_1") is Change.NOT_NOW
    assert await book.cases.by_reference("sandbox", "vs_dec_1") is None
    assert await book.state(second) is CaseState.PENDING
    assert await book.assurance() == (Assurance.NONE, None)


@pytest.mark.parametrize("late", [PASSED, FAILED, Finding(CaseEvent.RESTARTED, "admin")])
async def test_h39_what_comes_after_the_end_changes_nothing(book: Book, late: Finding) -> None:
    """An older word than the last one is not the last word."""
    case = await book.begun()
    await book.end(case, PASSED)
    assert await book.end(case, late) is Change.NOT_NOW
    assert await book.state(case) is CaseState.VERIFIED
    assert await book.end(case, LAPSED) is Change.DONE
    if late.event is not CaseEvent.RESTARTED:
        assert await book.end(case, late) is Change.NOT_NOW
        assert await book.state(case) is CaseState.EXPIRED


@pytest.mark.parametrize(
    ("held", "until", "after"),
    [
        (IAL2, None, (IAL2, None)),
        (IAL1, None, (IAL1, None)),
        (IAL1, AT + 400 * DAY_S, (IAL1, AT + 400 * DAY_S)),
        (IAL1, AT + DAY_S, (IAL1, AT + 365 * DAY_S)),
        (IAL2, AT - 1, (IAL1, AT + 365 * DAY_S)),
    ],
    ids=["higher", "without end", "longer", "shorter", "higher but over"],
)
async def test_an_approval_never_lowers_or_shortens(
    book: Book, held: Assurance, until: float | None, after: tuple[Assurance, float | None]
) -> None:
    """What an operator has set meanwhile stays if it is worth more."""
    case = await book.begun()
    await book.account(assurance=held, assurance_expires=until)
    assert await book.end(case, PASSED) is Change.DONE
    assert await book.assurance() == after


async def test_a_proof_may_be_good_for_ever(book: Book) -> None:
    """No validity, no end."""
    case = await book.begun()
    await book.end(case, PASSED, valid_s=None)
    assert await book.assurance() == (IAL1, None)
    found = await book.cases.get(case.id)
    assert found is not None
    assert (found.expires_at, found.next_check_at) == (None, None)


async def test_long_words_are_cut(book: Book) -> None:
    """A vendor's reason of any length fits the column."""
    case = await book.begun()
    assert await book.end(case, replace(FAILED, reason="x" * 5_000)) is Change.DONE
    found = await book.cases.get(case.id)
    assert found is not None
    assert found.reason == "x" * 200


async def test_no_such_case(book: Book) -> None:
    """A finding about nothing is told."""
    assert (await book.cases.apply("case_no", PASSED, at=AT, valid_s=None)) == (
        Change.NO_CASE,
        None,
    )


# --- references, looks, pages ---


async def test_of_two_that_start_a_try_the_first_is_kept(book: Book) -> None:
    """Both go on with the same session of the vendor."""
    _, case = await book.open()
    one = await book.cases.attach(case, "vs_1", at=AT)
    two = await book.cases.attach(case, "vs_2", at=AT)
    assert one is not None
    assert two == one
    assert await book.cases.by_reference("sandbox", "vs_1") == one
    assert await book.cases.by_reference("sandbox", "vs_2") is None
    assert await book.cases.by_reference("other", "vs_1") is None


async def test_one_node_takes_each_look(book: Book) -> None:
    """Of many that see a case due, one gets it."""
    case = await book.begun()
    assert await book.cases.due(at=AT + FIRST_CHECK_S - 1, limit=5) == ()
    assert await book.cases.due(at=AT + FIRST_CHECK_S, limit=5) == (case,)
    claims = [book.cases.claim(case, until=AT + 500) for _ in range(5)]
    assert sum(await asyncio.gather(*claims)) == 1
    assert await book.cases.due(at=AT + 499, limit=5) == ()


async def test_pages_of_cases(book: Book) -> None:
    """By id, by state, by account, and by any whole name that leads to a case."""
    made = []
    for number in range(5):
        await book.account(f"a{number}")
        made.append(await book.begun(f"dec_{number}", account_id=f"a{number}"))
    await book.end(made[0], FAILED)
    page = await book.cases.page(limit=2)
    assert [case.id for case in page] == [case.id for case in made[:2]]
    rest = await book.cases.page(after=page[-1].id)
    assert [case.id for case in rest] == [case.id for case in made[2:]]
    assert [case.id for case in await book.cases.page(state=CaseState.REJECTED)] == [made[0].id]
    for found in (
        await book.cases.page(account_id="a3"),
        *[await book.cases.page(text=name) for name in (made[3].id, "a3", "dec_3", "vs_dec_3")],
    ):
        assert [case.id for case in found] == [made[3].id]
    assert await book.cases.page(text="a") == ()
    assert await book.cases.of_account("a3", IAL2) is None
    assert await book.cases.of_account("a3", IAL1) == made[3]


async def test_old_deliveries_are_forgotten(book: Book) -> None:
    """The table does not grow for ever."""
    await book.cases.note("sandbox", "msg_old", at=AT)
    await book.cases.note("sandbox", "msg_new", at=AT + 10)
    await book.cases.forget_deliveries(before=AT + 5)
    assert not await book.cases.noted("sandbox", "msg_old")
    assert await book.cases.noted("sandbox", "msg_new")


async def test_a_row_damaged_by_hand_is_told(book: Book) -> None:
    """An unknown state is an error that names the case."""
    case = await book.begun()
    async with book.records.database.writing() as connection:
        await connection.execute(text("UPDATE verification_cases SET state = 'maybe'"))
    with pytest.raises(RecordsError, match=case.id):
        await book.cases.get(case.id)


def test_the_tables_are_part_of_the_records() -> None:
    """Whoever makes the tables makes these too."""
    assert {CASES, CASE_STEPS, VENDOR_EVENTS, ACCOUNTS} <= set(METADATA.tables.values())
