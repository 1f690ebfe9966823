"""What must hold of every request of a conservation test; breaches come back as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from support.conservation.plan import UNREAD, YIELDING, Cut, Family, Fault
from support.conservation.rules import CACHED_CENTS, INPUT_CENTS, OUTPUT_CENTS

if TYPE_CHECKING:
    from support.conservation.case import Case

_OK: Final = 200
_ERROR_EVENT_BYTES: Final = 512
_BROKEN: Final = frozenset({"reset", "closed", "malformed", "silent", "no_end"})
_ORDERLY: Final = frozenset({"complete", "closed", "no_end", "silent"})
"""Endings after which all that the upstream sent has reached the gate."""


def presence(case: Case) -> list[str]:
    """Find a decision for every request, and at the upstream none that was refused."""
    seen, found = case.seen, []
    if case.decision is None and not case.at_risk:
        gone = seen.status is None and (seen.cut or case.left)
        if not gone:
            found.append(
                f"no decision; status {seen.status}, broke {seen.broke}, after {seen.after}"
            )
        elif case.upstream is not None:
            found.append("reached the upstream without a decision")
    if case.decision is not None and not case.allowed and case.upstream is not None:
        found.append(f"was {case.decision['verdict']} and reached the upstream all the same")
    if case.allowed and case.outcome is None and case.life.killed_s is None:
        found.append("was let through and has no outcome")
    if seen.decision is not None and case.decision and seen.decision != case.decision["id"]:
        found.append(f"was told decision {seen.decision}, recorded is {case.decision['id']}")
    if seen.broke == "hang":
        found.append("hung")
    return found


def ending(case: Case) -> list[str]:
    """Let nothing incomplete look whole, and all that is whole arrive."""
    seen, sent, plan = case.seen, case.upstream, case.seen.planned
    if sent is None or sent["status"] != _OK:
        return []
    whole = seen.looks_whole and seen.status == _OK
    stopped = case.outcome is not None and case.outcome["ending"] == "stopped"
    unread = plan.family in {Family.PLAIN, Family.SPEECH} and sent["end"] == "no_end"
    if sent["end"] in _BROKEN and whole and not unread and not stopped:
        return [f"the upstream left it {sent['end']}, and it looks whole"]
    undisturbed = not seen.cut and not case.at_risk and plan.cut is not Cut.STALL
    found = []
    if sent["end"] == "complete" and undisturbed and not whole:
        found.append(f"the upstream sent all of it, and it does not look whole ({seen.broke})")
    if plan.stream and plan.family in {Family.CHAT, Family.COMPLETIONS}:
        if seen.usage and not plan.wants_usage:
            found.append("was told the usage for which it did not ask")
        if plan.wants_usage and whole and sent["output"] is not None and not seen.usage:
            found.append("asked for the usage and was not told")
    return found


def tokens(case: Case, outcome: dict[str, Any]) -> list[str]:
    """Hold the two laws: charged equals reported, or lies between delivered and held."""
    usage, sent, plan = outcome["usage"], case.upstream, case.seen.planned
    charged = (usage["input_tokens"], usage["output_tokens"])
    held = (case.held("given"), case.held("written"))
    if plan.family.free or outcome["failure"] == "upstream_unreachable":
        unanswered = sent is None or sent["status"] is None or plan.family.free
        free = charged == (0, 0) and unanswered
        return [] if free else [f"charged {charged} for what costs nothing"]
    if plan.family.unreported and outcome["status"] == _OK:
        return [] if charged == held else [f"charged {charged}, unreported, of held {held}"]
    if outcome["status"] not in {_OK, None}:
        within = charged[0] <= held[0] and charged[1] <= held[1]
        return [] if within else [f"charged {charged} for an error, held {held}"]
    reported = (None, None) if sent is None else (sent["given"], sent["output"])
    if not usage["estimated"]:
        return [] if charged == reported else [f"charged {charged}, reported {reported}"]
    found = []
    least_in = plan.prompt_words if reported[0] is None else min(reported[0], plan.prompt_words)
    if outcome["status"] is None:
        least_in = 0
    if not least_in <= charged[0] <= held[0]:
        found.append(f"input {least_in} <= {charged[0]} <= {held[0]} does not hold")
    beyond = plan.fault is Fault.OVERRUN  # more than was allowed: all that is held is charged
    least_out = min(case.seen.words, int(held[1])) if beyond else case.seen.words
    if not least_out <= charged[1] <= held[1]:
        found.append(f"output {least_out} <= {charged[1]} <= {held[1]} does not hold")
    read_on = outcome.get("drained") == "complete" and plan.model != YIELDING
    gone = case.seen.cut or outcome["ending"] in {"client_gone", "client_stalled", "stopped"}
    if sent is not None and sent["told"] and sent["end"] in _ORDERLY and (read_on or not gone):
        found.append(f"estimated at {charged}, though the upstream reported {reported}")
    return found


def conversation(case: Case, outcome: dict[str, Any]) -> list[str]:
    """Hold the laws for each turn, and the whole to the sum of its turns."""
    sent, plan = case.upstream, case.seen.planned
    reported = [] if sent is None else [tuple(turn) for turn in sent.get("turns", ())]
    found, exact = [], 0
    for turn in case.turns:
        cached = turn["parts"].get("cached_input_tokens", 0)
        charged = (turn["input_tokens"], turn["output_tokens"], cached)
        if not turn["estimated"]:
            exact += 1
            if charged not in reported:
                found.append(f"a turn was charged {charged}, reported were {reported}")
        elif charged[1] > max(plan.bound or 0, case.held("written")):  # the first may hold more
            found.append(f"a turn was charged {charged} above what it held")
    if exact > len(reported):
        found.append(f"{exact} turns were charged as reported, reported were {reported}")
    if exact < len(reported) and not case.seen.cut and case.seen.framed:
        found.append(f"{exact} turns were charged as reported, reported were {reported}")
    for unit in ("input_tokens", "output_tokens"):
        total = sum(turn[unit] for turn in case.turns)
        if outcome["usage"][unit] != total:
            found.append(f"{unit} of the whole are {outcome['usage'][unit]}, of its turns {total}")
    beyond = plan.fault in {Fault.OVERRUN, Fault.ZERO}
    if case.seen.words > outcome["usage"]["output_tokens"] and not beyond:
        found.append(f"{case.seen.words} tokens came, {outcome['usage']} was charged")
    return found


def price_and_bytes(case: Case, outcome: dict[str, Any]) -> list[str]:
    """Compare the price with the tokens, and the bytes with both bodies."""
    usage, plan, sent = outcome["usage"], case.seen.planned, case.upstream
    cached = usage.get("parts", {}).get("cached_input_tokens", 0)
    reported = 0 if sent is None else sent["cached"]
    cents = (
        (usage["input_tokens"] - cached) * INPUT_CENTS
        + cached * CACHED_CENTS
        + usage["output_tokens"] * OUTPUT_CENTS
    ) / 1e6
    cents *= 0.5 if plan.family in {Family.BATCHES, Family.FILE_BATCHES} else 1.0
    found = []
    if abs(cents - usage["cost_cents"]) > 1e-9 * max(1.0, cents):
        found.append(f"costs {usage['cost_cents']} instead of {cents}")
    if cached not in {0, reported} or (cached != reported and not usage["estimated"]):
        found.append(f"{cached} cached tokens, reported {reported}")
    went, came = outcome["bytes_sent"], case.seen.body_bytes
    asked = len(plan.body())
    partly = plan.family in UNREAD and case.seen.cut  # what was not yet read is not charged
    least = went if partly else asked + went
    if not least <= usage["bytes"] <= asked + went:
        found.append(f"charged {usage['bytes']} bytes of {asked} + {went}")
    broken = outcome["ending"] in {"upstream_broke", "upstream_silent"}
    if outcome["failure"] is None and came > went + (_ERROR_EVENT_BYTES if broken else 0):
        found.append(f"{came} bytes arrived of {went} sent")
    if case.seen.framed and outcome["failure"] is None and came != went:
        found.append(f"{came} bytes arrived, {went} were sent")
    if plan.fault is Fault.NONE and outcome["failure"] is None and not case.seen.framed:
        disturbed = case.seen.cut or plan.cut is Cut.STALL or case.at_risk
        if not disturbed:
            found.append("nothing went wrong, and yet it did not end")
    return found
