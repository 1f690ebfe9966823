"""The accounts of a rehearsal: there from when they were made, and proven when they would be."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from gatekeeper.policy.words import Assurance
from gatekeeper.storage.organizations import OrganizationRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gatekeeper.facts.replica import Replica
    from gatekeeper.storage.records_schema import AccountRow


class Response(NamedTuple):
    """How an account fares when it is first asked who it is."""

    passes: bool
    after_s: float


class People:
    """Tells the replica who is there, as time goes on."""

    def __init__(
        self,
        replica: Replica,
        accounts: Iterable[AccountRow],
        responses: Mapping[str, Response],
    ) -> None:
        """Of each account of ``responses`` it is known how it responds; others never do.

        An organization that an account has is a verified one: nobody else would say so.
        """
        self._replica = replica
        self._rows = {row.id: row for row in accounts}
        for name in {row.organization for row in self._rows.values()} - {None}:
            replica.apply_organization(OrganizationRow(str(name), str(name), verified=True))
        self._coming = sorted(
            self._rows.values(), key=lambda row: (row.created_at or 0.0, row.id), reverse=True
        )
        self._responses = responses
        self._asked: dict[str, Assurance] = {}
        self._due: list[tuple[float, str, Assurance]] = []
        self._proven: dict[str, Assurance] = {}

    def join(self, row: AccountRow) -> None:
        """Take in an account that nobody knew of before."""
        self._rows[row.id] = row
        self._replica.apply_account(row)

    def until(self, at: float) -> None:
        """Let all happen that happens up to ``at``: accounts are made, others proven."""
        coming, due = self._coming, self._due
        while coming and (coming[-1].created_at or 0.0) <= at:
            self._replica.apply_account(coming.pop())
        while due and due[0][0] <= at:
            _, account, level = heappop(due)
            if level.rank > self._proven.get(account, Assurance.NONE).rank:
                self._proven[account] = level
            row = self._rows.get(account)
            if row is not None:
                self._replica.apply_account(replace(row, assurance=self._proven[account]))

    def ask(self, account: str, level: Assurance, at: float) -> None:
        """Note that an account was asked to prove who it is; the first time counts."""
        if level.rank <= self._asked.get(account, Assurance.NONE).rank:
            return
        self._asked[account] = level
        response = self._responses.get(account)
        if response is not None and response.passes:
            heappush(self._due, (at + response.after_s, account, level))

    @property
    def proven(self) -> frozenset[str]:
        """The accounts that have proven who they are, so far."""
        return frozenset(self._proven)
