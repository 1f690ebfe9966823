"""`gatekeeper replay`: recorded traffic, one decision for each line, campaigns included."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from support.recordings import DAY, START, Recording

from gatekeeper.cli import main
from gatekeeper.cli import replay as command

if TYPE_CHECKING:
    from click.testing import Result

RULES = Path(__file__).parents[2] / "rules"
CALL = {
    "at": 1776816000.25,
    "remote": "73.4.5.6",
    "method": "POST",
    "path": "/v1/chat/completions",
    "headers": {"user-agent": "OpenAI/Python 1.99.1"},
    "account": "a-17",
    "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hello"}]},
    "response": {"status": 200, "usage": {"input_tokens": 812, "output_tokens": 640}},
}
ACCOUNT = {
    "id": "a-17",
    "created_at": 1776729600,
    "email": "x@example.org",
    "organization": None,
    "payment_fingerprint": "pf_1",
    "signup_address": "73.4.5.6",
    "tier": "standard",
}
FIELDS = ["line", "at", "account", "verdict", "reasons", "campaign", "score"]


def run(
    folder: Path, calls: list[Any], accounts: list[Any], *more: str
) -> tuple[Result, list[Any]]:
    """Replay calls (dicts, or lines as they are); return the result and the decisions."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in calls]
    traffic, people, out = folder / "t.jsonl", folder / "a.jsonl", folder / "out.jsonl"
    traffic.write_text("".join(line + "\n" for line in lines))
    people.write_text("".join(json.dumps(each) + "\n" for each in accounts))
    result = invoke(traffic, people, out, *more)
    if not out.exists():
        return result, []
    return result, [json.loads(line) for line in out.read_text().splitlines()]


def invoke(traffic: Path, accounts: Path, out: Path, *more: str) -> Result:
    """Run the command."""
    arguments = ["replay", str(traffic), "--accounts", str(accounts), "--rules", str(RULES)]
    return CliRunner().invoke(main, [*arguments, "--out", str(out), "--json", *more])


def test_the_documented_lines_are_read(tmp_path: Path) -> None:
    """A call is decided as the gate would, in the documented fields and their order."""
    result, told = run(tmp_path, [CALL], [ACCOUNT], "--no-watch")
    assert result.exit_code == 0, result.output
    assert [list(each) for each in told] == [FIELDS]
    assert told[0] | {"score": 0} == {
        "line": 1, "at": CALL["at"], "account": "a-17", "verdict": "allow", "reasons": [],
        "campaign": None, "score": 0,
    }  # fmt: skip
    summary = json.loads(result.stdout)
    assert summary["verdicts"] == {"allow": 1}
    assert summary["campaigns"] == []
    assert (summary["first_at"], summary["last_at"]) == (CALL["at"], CALL["at"])


def test_every_line_gets_one_decision_in_order(tmp_path: Path) -> None:
    """Lines that tell no call are decided too; nothing of what they hold is told."""
    secret = "a prompt nobody may see"
    bad = [
        "no json " + secret,
        "",
        json.dumps([1]),
        json.dumps(CALL | {"remote": secret}),
        json.dumps(CALL | {"at": -1}),
        json.dumps(CALL | {"at": "NaN"}),
        json.dumps(CALL | {"account": "two words"}),
        json.dumps(CALL | {"headers": {"a": 1}}),
        json.dumps(CALL | {"response": {"status": 200, "usage": {"output_tokens": -5}}}),
        "[" * 5_000,
        "\ufeff{}",
    ]
    result, told = run(tmp_path, [CALL, *bad, CALL], [ACCOUNT], "--no-watch")
    assert result.exit_code == 1
    assert [each["line"] for each in told] == list(range(1, len(bad) + 3))
    assert [each["verdict"] for each in told] == ["allow", *["invalid"] * len(bad), "allow"]
    assert all(each["reasons"] == ["unreadable_line"] for each in told[1:-1])
    assert f"t.jsonl:{len(bad) + 1}: not a JSON object" in result.stderr
    assert secret not in result.output
    assert secret not in json.dumps(told)


def test_callers_and_heads_are_judged_as_by_a_gate(tmp_path: Path) -> None:
    """Without an account headers name the caller; embargo, bad paths and bodies are refused."""
    nobody = {key: value for key, value in CALL.items() if key != "account"}
    keyed = nobody | {"headers": {"Authorization": "Bearer sk-own"}}
    gate_key = nobody | {"headers": {"Authorization": "Bearer gk_12345678_abc"}}
    calls = [
        nobody,
        keyed,
        gate_key,
        CALL | {"remote": "175.45.176.1"},
        CALL | {"path": "/v1/../admin"},
        CALL | {"body": {"messages": 7}},
        CALL | {"body": None, "method": "GET", "path": "/v1/models"},
        CALL | {"method": "BREW"},
    ]
    result, told = run(tmp_path, calls, [ACCOUNT], "--no-watch")
    assert result.exit_code == 0, result.output
    assert [(each["verdict"], each["reasons"]) for each in told] == [
        ("unauthenticated", ["credentials_missing"]),
        ("allow", []),
        ("unauthenticated", ["credentials_invalid"]),
        ("embargoed", ["region_not_supported"]),
        ("invalid", ["invalid_path"]),
        ("invalid", ["invalid_body"]),
        ("allow", []),
        ("invalid", ["invalid_request"]),
    ]
    assert told[1]["account"].startswith("opaque")


def test_an_account_exists_from_when_it_was_made(tmp_path: Path) -> None:
    """Before that, nothing that its line says is known of it: its tier comes with it."""
    moments = (0, *[100 + n / 1_000 for n in range(25)])
    calls = [CALL | {"at": START + after} for after in moments]
    for made, limited in ((START + 100, True), (START + 101, False)):
        account = ACCOUNT | {"created_at": made, "tier": "elevated"}
        _, told = run(tmp_path, calls, [account], "--no-watch")
        assert told[0]["verdict"] == "allow"
        assert ("rate_limited" in {each["verdict"] for each in told}) is limited


def test_proxies_are_believed_as_the_settings_say(tmp_path: Path) -> None:
    """A recording behind a balancer has its address as peer, and the caller's in a header."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("listeners: [{trusted_proxies: [73.4.5.6]}]")
    behind = {"X-Forwarded-For": "175.45.176.1"}
    calls = [CALL | {"headers": behind}, CALL]
    for more, first in (((), "allow"), (("--settings", str(settings)), "embargoed")):
        _, told = run(tmp_path, calls, [ACCOUNT], "--no-watch", *more)
        assert [each["verdict"] for each in told] == [first, "allow"]


def test_limits_go_by_what_was_used(tmp_path: Path) -> None:
    """The usage of the response is charged: without room the next call waits."""
    spent = CALL | {"response": {"status": 200, "usage": {"prompt_tokens": 10**7}}}
    _, told = run(tmp_path, [CALL, spent, CALL], [ACCOUNT], "--no-watch")
    assert [each["verdict"] for each in told] == ["allow", "allow", "rate_limited"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Recording]:
    """Return traffic (packed) and accounts: 500 honest ones, a campaign from the second day on."""
    folder = tmp_path_factory.mktemp("recording")
    made = Recording(days=3)
    made.honest(500)
    made.campaign(45, since=DAY)
    return *made.write(folder, packed=True), made


def test_a_campaign_is_found_contained_and_told(
    recording: tuple[Path, Path, Recording], tmp_path: Path
) -> None:
    """Members are asked who they are within hours; who proves it goes on, nobody else is asked."""
    traffic, accounts, made = recording
    outcomes, out = tmp_path / "outcomes.jsonl.gz", tmp_path / "out.jsonl"
    lines = [
        {"account": "fake-1", "passes": True, "after_s": 900},
        {"account": "fake-2", "passes": False, "after_s": 60},
    ]
    outcomes.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    more = ("--verification", str(outcomes), "--watch-every", "7200")
    result = invoke(traffic, accounts, out, *more)
    assert result.exit_code == 0, result.output
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["line"] for each in told] == list(range(1, len(made.calls) + 1))
    (campaign,) = json.loads(result.stdout)["campaigns"]
    assert set(campaign["members"]) <= {f"fake-{n}" for n in range(45)}
    assert len(campaign["members"]) >= 43
    assert campaign["left"] == ["fake-1"]
    assert len(campaign["layers"]) >= 2
    assert START + DAY <= campaign["first_seen"] < campaign["contained_at"] < START + 1.5 * DAY
    refused = {each["account"] for each in told if each["verdict"] == "step_up"}
    assert {name.split("-")[0] for name in refused} == {"fake"}
    late = [each for each in told if each["at"] > START + 2 * DAY]
    verdicts = {
        name: {each["verdict"] for each in late if each["account"] == name}
        for name in ("fake-1", "fake-2", "fake-3")
    }
    assert verdicts == {"fake-1": {"allow"}, "fake-2": {"step_up"}, "fake-3": {"step_up"}}
    named = {each["campaign"] for each in late if each["account"] == "fake-3"}
    assert named == {campaign["id"]}


def test_the_same_recording_tells_the_same(
    recording: tuple[Path, Path, Recording], tmp_path: Path
) -> None:
    """Nothing of the clock, chance or place of a replay is in what it tells."""
    traffic, accounts, _ = recording
    outs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    told = [invoke(traffic, accounts, out, "--watch-every", "43200") for out in outs]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    one, two = (json.loads(each.stdout) for each in told)
    assert one["campaigns"] == two["campaigns"]


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        ('{"id": "a b"}', "a.jsonl:1: `id` is not"),
        ('{"id": "a"}\n{"id": "b", "tier": "gold"}', "a.jsonl:2: Invalid enum value"),
        ('{"id": "a", "signup_address": "here"}', "a.jsonl:1: `signup_address` is not"),
        ("{", "a.jsonl:1: not a JSON object"),
    ],
)
def test_wrong_accounts_are_told_and_nothing_is_written(
    tmp_path: Path, accounts: str, said: str
) -> None:
    """A file of accounts is read whole before anything is decided."""
    traffic, people, out = tmp_path / "t.jsonl", tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    traffic.write_text(json.dumps(CALL))
    people.write_text(accounts)
    result = invoke(traffic, people, out, "--no-watch")
    assert result.exit_code == 2
    assert said in result.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "t.jsonl"]


def test_damaged_packed_traffic_leaves_no_decisions(tmp_path: Path) -> None:
    """What was cut off is told with its place, and no half of an answer is left."""
    traffic, people, out = tmp_path / "t.gz", tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    traffic.write_bytes(gzip.compress((json.dumps(CALL) + "\n").encode() * 500)[:-20])
    people.write_text(json.dumps(ACCOUNT))
    result = invoke(traffic, people, out, "--no-watch")
    assert result.exit_code == 2
    assert "damaged after this line" in result.stderr
    assert not out.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "t.gz"]


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Campaigns need the watcher's libraries; decisions alone do not."""
    monkeypatch.setattr(command, "installed", lambda: False)
    result, told = run(tmp_path, [CALL], [ACCOUNT])
    assert (result.exit_code, told) == (2, [])
    assert "gatekeeper[watcher]" in result.stderr
    assert "--no-watch" in result.stderr
