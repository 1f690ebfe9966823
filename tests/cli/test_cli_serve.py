"""`gatekeeper serve` as a process: the tour it prints works, mistakes end it, SIGTERM too."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.valkey import free_port

from gatekeeper.cli.serve import serve
from gatekeeper.cli.tour import _own_name
from gatekeeper.settings.load import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., Any]

ROOT = Path(__file__).parents[2]


def test_every_flag_of_the_settings_is_an_option() -> None:
    """What `docs/settings.md` lists as a flag can be given to `serve`."""
    assert set(FLAGS) <= {option for each in serve.params for option in each.opts}


@pytest.mark.parametrize(
    ("called", "path", "shown"),
    [
        (".venv/bin/gatekeeper", "", ".venv/bin/gatekeeper"),
        ("{bin}/gatekeeper", "{bin}", "gatekeeper"),
        ("gatekeeper/__main__.py", "", "gatekeeper"),
    ],
    ids=["not on the path", "on the path", "as a module"],
)
def test_the_tour_names_a_command_that_can_be_typed(
    called: str, path: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `make run` in a fresh clone nothing is on the path yet."""
    (tmp_path / "gatekeeper").touch(mode=0o755)
    monkeypatch.setenv("PATH", path.format(bin=tmp_path))
    monkeypatch.setattr(sys, "argv", [called.format(bin=tmp_path), "serve"])
    assert _own_name() == shown


def served(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `gatekeeper serve` with data of its own."""
    environ = {
        **os.environ,
        "GATEKEEPER_DATA_DIR": str(tmp_path / "data"),
        "GATEKEEPER_DEADLINES__READINESS_S": "0",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "gatekeeper", "serve", *arguments],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start the demo; yield the process and what it printed."""
    process = served(
        tmp_path, "--demo", "--port", str(free_port()), "--ops-port", "0", "--admin-port", "0"
    )
    with process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("gatekeeper explain"):
                break
        yield process, lines
        process.kill()


def curl(command: str) -> tuple[int, dict[str, str], str]:
    """Do what a printed curl command says; return status, headers and body."""
    words = shlex.split(command)
    url = next(word for word in words if word.startswith("http"))
    headers = dict(word.split(": ", 1) for flag, word in pairwise(words) if flag == "-H")
    data = words[words.index("-d") + 1].encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - a URL of our own
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def visited(url: str, form: bytes | None = None) -> str:
    """Open a page, or send its form; return where that led and what is written there."""
    with urllib.request.urlopen(url, form, timeout=10) as page:  # noqa: S310 - our own
        return f"{page.url}\n{page.read().decode()}"


def test_the_tour_does_what_it_says(
    demo: tuple[subprocess.Popen[str], list[str]], run: Run
) -> None:
    """Each printed command shows its thing; SIGTERM ends the process well."""
    process, lines = demo
    curls = [line for line in lines if "curl" in line]
    allowed, embargoed, burst, step_up, streamed = curls
    status, headers, body = curl(allowed)
    assert (status, "Hello" in body) == (200, True)
    shown = run("explain", headers["Gatekeeper-Decision"]).stdout
    assert "Same verdict offline: yes" in shown
    assert curl(embargoed)[0] == 451
    loop = re.fullmatch(r"for i in ([\d ]+); do (.*); done", burst)
    assert loop is not None
    seen = [curl(loop[2])[0] for _ in loop[1].split()]
    assert seen == [200] * 5 + [429] * 2
    status, _, body = curl(step_up)
    assert status == 403
    link = re.search(r"Open (http\S+) to verify", body)
    assert link is not None
    assert "Start verification" in visited(link[1])
    sandbox = visited(link[1], b"")  # its button leads to the vendor
    vendor_page = sandbox.partition("\n")[0]
    assert "No identity is checked" in sandbox
    assert "Your identity is verified" in visited(vendor_page, b"result=pass")
    assert curl(step_up)[0] == 200
    assert curl(streamed)[2].endswith("data: [DONE]\n\n")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_mistakes_end_it_at_once(tmp_path: Path, run: Run) -> None:
    """Wrong settings, wrong rules and a port that is taken are 2, told without a traceback."""
    assert "upstreams: This is empty" in run("serve", code=2).stderr
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "one.yaml").write_text("version: 1\n")
    upstream = (
        "--upstream",
        "http://127.0.0.1:1",
        "--ops-port",
        "0",
        "--admin-port",
        "0",
        "--log-format",
        "console",
    )
    told = run("serve", *upstream, "--rules-dir", str(rules), code=2).stderr
    assert "one.yaml" in told
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = run("serve", *upstream, "--port", port, code=2).stderr
    assert "listeners" in told
    assert "already in use" in told
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").write_text("in the way")
    assert "data_dir" in run("serve", *upstream, "--port", "0", code=2).stderr


def test_an_upstream_by_flag_takes_the_keys_that_callers_have(tmp_path: Path) -> None:
    """`UPSTREAM=... make run` needs no registration: the endpoint's own keys go through."""
    port, model_port = str(free_port()), str(free_port())
    demo = [sys.executable, "-m", "gatekeeper", "demo", "--port", model_port]
    with (
        subprocess.Popen(demo, cwd=ROOT, stdout=subprocess.DEVNULL) as endpoint,
        served(
            tmp_path,
            *("--upstream", f"http://127.0.0.1:{model_port}"),
            *("--port", port, "--ops-port", "0", "--admin-port", "0"),
        ) as gate,
    ):
        try:
            assert gate.stdout is not None
            assert "or the endpoint's own key" in gate.stdout.readline()
            for _ in range(200):  # the endpoint starts on its own
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", int(model_port)), 0.1).close()
                    break
                time.sleep(0.05)
            else:
                pytest.fail("the endpoint did not start")
            message = '{"model":"demo-small","messages":[{"role":"user","content":"Hello"}]}'
            call = f"curl http://127.0.0.1:{port}/v1/chat/completions -d '{message}'"
            assert curl(f"{call} -H 'authorization: Bearer sk-mine'")[0] == 200
            assert curl(call)[0] == 401
        finally:
            gate.kill()
            endpoint.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_first_moment_is_not_lost(number: int, tmp_path: Path) -> None:
    """Whoever sees that it listens may signal at once: it drains and ends well, or reads again."""
    arguments = ("--upstream", "http://127.0.0.1:9", "--port", "0", "--ops-port", "0")
    with served(tmp_path, *arguments, "--admin-port", "0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Callers: ")
        process.send_signal(number)
        if number == signal.SIGHUP:
            assert "Upstream" in "".join(process.stdout.readline() for _ in range(3))
            process.terminate()
        assert process.wait(30) == 0
