"""``gatekeeper explain``: why a request is decided as it is, from a description or a record."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import structs

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    console,
    data_dir_option,
    give_up,
    json_option,
    settings_from,
    settings_option,
    table,
)
from gatekeeper.facts.address import parse_address
from gatekeeper.facts.network import NetworkData
from gatekeeper.policy.case_facts import REQUEST_FIELDS, facts_of
from gatekeeper.policy.decide import conclude, judge
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.record import to_record
from gatekeeper.policy.shaping import told
from gatekeeper.policy.view import FieldType, view_of
from gatekeeper.policy.words import GateMode
from gatekeeper.sources import rules_archive
from gatekeeper.storage.decision_files import find
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.replay import replayed
from gatekeeper.storage.rule_store import read_rules

if TYPE_CHECKING:
    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import Decision, Facts, Value
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Settings

_EXPLAINED: Final = "explained"


@click.command()
@click.argument("decision_id", required=False)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Describe a request: any field that conditions may read. May be repeated.",
)
@click.option(
    "--address", help="Take the network facts of this address instead of describing them."
)
@click.option("--rules", "rules_dir", type=click.Path(path_type=Path), help="Rule directory.")
@json_option
@settings_option
@data_dir_option
def explain(
    *,
    decision_id: str | None,
    assignments: tuple[str, ...],
    address: str | None,
    rules_dir: Path | None,
    as_json: bool,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Explain a described request, or the recorded decision DECISION_ID.

    What is not described is an ordinary caller: residential, US, a standard account of 400 days.

    \b
    Example:
      gatekeeper explain --set network.kind=tor --set account.age_days=0.5
      gatekeeper explain --address 47.74.0.1
      gatekeeper explain dec_019a8b6c5d4e0123456789abcdef
    """
    settings = settings_from(settings_file, {"--rules-dir": rules_dir, "--data-dir": data_dir})
    rules = read_rules(settings.rules_dir)
    if isinstance(rules, list):
        give_up(rules)
    if decision_id is not None:
        if assignments or address is not None:
            raise click.UsageError("A recorded decision has its facts: leave --set and --address.")
        _recorded(decision_id, settings, rules, as_json=as_json)
        return
    facts = _described(assignments, address, settings)
    decision = _judged(facts, rules)
    _show(decision, facts, as_json=as_json)


def _judged(facts: Facts, rules: RuleSet) -> Decision:
    """Judge described facts; the limits are asked as if nothing had been used yet."""
    standing = judge(facts, rules)
    claims: tuple[Claim, ...] = ()
    if standing.admits:
        claims = LimitPlanner(rules).claims(facts, standing, view_of(facts))
    limits = tuple(
        claim.status(claim.quota.burst - claim.amount, claim.quota.wait_s(0, 0, claim.amount))
        for claim in claims
    )
    return conclude(
        standing, limits, rules, decision_id=_EXPLAINED, at=facts.at, mode=GateMode.ENFORCE
    )


def _described(assignments: tuple[str, ...], address: str | None, settings: Settings) -> Facts:
    fields: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise click.BadParameter(f"{assignment!r} is not FIELD=VALUE")
        fields[name] = _typed(REQUEST_FIELDS.get(name), text)
    facts = facts_of(fields)
    if isinstance(facts, list):
        give_up([replace(mistake, file="command line") for mistake in facts])
    if address is None:
        return facts
    parsed = parse_address(address)
    if parsed is None:
        click.echo(f"{address!r} is not an IPv4 or IPv6 address", err=True)
        raise SystemExit(MISTAKES)
    data = NetworkData.load(settings.geoip, secret=os.urandom(32), now_unix_s=facts.at)
    return structs.replace(facts, network=data.observe(parsed))


def _typed(kind: FieldType | None, text: str) -> object:
    """Read a value as its field's type; what does not fit stays text, for the check to name."""
    if text == "null":
        return None
    try:
        match kind:
            case FieldType.INT:
                return int(text)
            case FieldType.DOUBLE:
                return float(text)
            case FieldType.BOOL:
                return {"true": True, "false": False}.get(text, text)
            case FieldType.STRINGS:
                return [item for item in text.split(",") if item]
            case _:
                return text
    except ValueError:
        return text


def _recorded(decision_id: str, settings: Settings, rules: RuleSet, *, as_json: bool) -> None:
    record = find(settings.decision_log.directory, decision_id)
    if record is None:
        click.echo(f"no decision {decision_id} in {settings.decision_log.directory}", err=True)
        raise SystemExit(FAILED)
    replay = replayed(record, rules, rules_archive(settings))
    if isinstance(replay, str):
        click.echo(replay, err=True)
        raise SystemExit(FAILED)
    recorded, same = replay.recorded, replay.same
    _show(replay.decision, recorded.facts, as_json=as_json, mode=recorded.mode, same=same)
    if replay.now is not None and not as_json:
        click.echo(f"By today's rules ({rules.revision}): {replay.now.verdict.word}")
    if not same:
        raise SystemExit(FAILED)


def _show(
    decision: Decision,
    facts: Facts,
    *,
    as_json: bool,
    mode: GateMode = GateMode.ENFORCE,
    same: bool | None = None,
) -> None:
    if as_json:
        record = to_record(decision, facts, mode=mode)
        if same is not None:
            record["same_verdict_offline"] = same
        click.echo(encode_record(record).decode(), nl=False)
        return
    out = console()
    facts_shown = ((name, _shown(value)) for name, value in sorted(view_of(facts).items()))
    table("Facts", ("field", "value"), facts_shown)
    table(
        "\nLook-ups",
        ("view", "status", "source"),
        ((found.view, found.status, found.source) for found in facts.network.lookups),
    )
    score = decision.score
    if score is not None:
        table(
            f"\nScore {score.total} (with shadow rules {score.shadow_total})",
            ("signal", "points", "mode"),
            ((found.signal, found.points, found.mode) for found in score.contributions),
        )
    table(
        "\nFindings",
        ("rule", "mode", "verdict", "reason", "detail"),
        (
            (found.rule, found.mode, found.verdict.word, found.reason, found.detail)
            for found in decision.findings
        ),
    )
    table(
        "\nLimits",
        ("rule", "unit", "per", "mode", "asked", "left", "burst", "wait"),
        (
            (
                limit.rule,
                limit.unit,
                "+".join(limit.per) or "everybody",
                limit.mode,
                _amount(limit.requested),
                _amount(limit.remaining),
                _amount(limit.limit),
                _wait(limit.retry_after_s),
            )
            for limit in decision.limits
        ),
    )
    out.print(f"\nVerdict: {decision.verdict.word}", end="")
    out.print(f" ({decision.reason})" if decision.reason else "")
    out.print(f"With shadow rules: {decision.shadow_verdict.word}")
    out.print(f"Rules: {decision.rules_revision}")
    if facts.containment:
        out.print(f"Containment: {facts.containment}")
    if mode is not GateMode.ENFORCE:
        out.print(f"Mode: {mode}")
    if decision.shaping is not None:
        out.print(f"Shaping: {told(decision.shaping)} (by {', '.join(decision.shaping.rules)})")
    if decision.obligation is not None:
        out.print(f"Needs: {decision.obligation.assurance} (by {decision.obligation.rule})")
    if same is not None:
        out.print(f"Same verdict offline: {'yes' if same else 'no'}")


def _shown(value: Value) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return _amount(value) if isinstance(value, float) else str(value)


def _wait(seconds: float) -> str:
    if math.isinf(seconds):
        return "never fits"
    return f"{_amount(seconds)} s" if seconds else ""


def _amount(value: float) -> str:
    """Return a number as people read it: whole, or with two decimals; never with an exponent."""
    return f"{value:,.2f}".removesuffix(".00")
