"""Settings: three sources, one precedence, every mistake told at its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import Settings
from gatekeeper.settings.docs import settings_page, settings_schema
from gatekeeper.settings.load import FLAGS, load_settings
from gatekeeper.settings.shape import leaves, place_of, type_at, variable_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str], Path]

ROOT = Path(__file__).parents[2]


_VENDOR = "vendor: sandbox, vendor_url: 'http://v'"
_KEY = "vendor_key: {env: A}, webhook_secrets: [{env: B}]"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a settings file and return its path."""

    def _write(text: str) -> Path:
        file = tmp_path / "settings.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return _write


def loaded(*sources: Any, **options: Any) -> Settings:
    """Load settings that have no mistake."""
    found = load_settings(*sources, **options)
    assert isinstance(found, Settings), found
    return found


def told(*sources: Any, **options: Any) -> list[str]:
    """Load settings that have mistakes, and return them as they are printed."""
    found = load_settings(*sources, **options)
    assert isinstance(found, list), found
    return [str(mistake) for mistake in found]


# --- precedence ---


def test_defaults_are_valid() -> None:
    """Without any source, the defaults hold."""
    assert loaded(None, {}, {}) == Settings()


def test_flags_beat_environment_beats_file(write: Write) -> None:
    """Each source overrides only what it names."""
    file = write("ops: {port: 1, host: '::1'}\nlog: {level: debug, format: console}\nname: one\n")
    environ = {"GATEKEEPER_OPS__PORT": "2", "GATEKEEPER_LOG__LEVEL": "error", "HOME": "/root"}
    settings = loaded(file, environ, {"--ops-port": 3, "--name": None})
    assert (settings.ops.port, settings.ops.host) == (3, "::1")
    assert (settings.log.level, settings.log.format) == ("error", "console")
    assert settings.name == "one"


def test_one_field_of_a_listener_can_be_set_from_outside(write: Write) -> None:
    """``--port`` moves the first listener, be it the file's or the default, and nothing else."""
    file = write("listeners: [{host: 0.0.0.0, port: 80}, {port: 81}]\n")
    assert [each.port for each in loaded(file, {}, {"--port": 90}).listeners] == [90, 81]
    assert loaded(file, {}, {"--port": 90}).listeners[0].host == "0.0.0.0"
    assert loaded(None, {"GATEKEEPER_LISTENERS__0__PORT": "91"}, {}).listeners[0].port == 91


def test_decisions_are_kept_with_the_other_data(write: Write) -> None:
    """Moving the data moves the decision log, unless it has a place of its own."""
    assert loaded(None, {}, {}).decision_log.directory == Path("var/decisions")
    moved = loaded(None, {}, {"--data-dir": "/data"})
    assert moved.decision_log.directory == Path("/data/decisions")
    file = write("decision_log: {directory: /logs, keep_files: 3}\n")
    assert loaded(file, {}, {"--data-dir": "/data"}).decision_log.directory == Path("/logs")
    file = write("data_dir: here\ndecision_log: {keep_files: 3}\n")
    assert loaded(file, {}, {}).decision_log.directory == file.parent / "here/decisions"


def test_variables_hold_lists_and_mappings_as_json() -> None:
    """A list replaces the default; an item may still be changed by a longer name."""
    environ = {
        "GATEKEEPER_UPSTREAMS": '[{"name": "a", "urls": ["http://one"]}]',
        "GATEKEEPER_UPSTREAMS__0__URLS__1": "http://two",
        "GATEKEEPER_LISTENERS__0__PROXY_PROTOCOL": "True",
        "GATEKEEPER_LISTENERS__0__TRUSTED_PROXIES": '["10.0.0.0/8"]',
        "GATEKEEPER_DEADLINES__IDLE_S": "1.5",
        "GATEKEEPER_GEOIP__MAX_AGE_DAYS": "null",
    }
    settings = loaded(None, environ, {})
    assert settings.upstreams[0].urls == ("http://one", "http://two")
    assert settings.listeners[0].proxy_protocol
    assert settings.deadlines.idle_s == 1.5


def test_upstream_flag_replaces_the_table(write: Write) -> None:
    """URLs on the command line are equal endpoints of one upstream."""
    file = write("upstreams: [{name: a, urls: ['http://a']}]\n")
    settings = loaded(file, {}, {"--upstream": ("http://b", "https://c/x")})
    assert [(each.name, each.urls) for each in settings.upstreams] == [
        ("upstream", ("http://b", "https://c/x"))
    ]
    assert loaded(None, {}, {"--upstream": "http://d"}).upstreams[0].urls == ("http://d",)


def test_paths_of_a_file_start_from_its_directory(write: Write) -> None:
    """Those of variables and flags start from the current directory."""
    file = write(
        "data_dir: data\nrules_dir: /etc/rules\n"
        "geoip: {databases: [a.mmdb]}\nsecret: {file: key}\n"
        "listeners: [{tls: {certificate: c.pem, key: k.pem}}]\n"
    )
    settings = loaded(file, {"GATEKEEPER_DECISION_LOG__DIRECTORY": "log"}, {})
    assert settings.data_dir == file.parent / "data"
    assert settings.rules_dir == Path("/etc/rules")
    assert settings.geoip.databases == (file.parent / "a.mmdb",)
    assert settings.secret is not None
    assert settings.secret.file == file.parent / "key"
    assert settings.listeners[0].tls is not None
    assert settings.listeners[0].tls.key == file.parent / "k.pem"
    assert settings.decision_log.directory == Path("log")


def test_every_place_has_a_variable_that_finds_it() -> None:
    """Names of variables and places are one to one."""
    for at in leaves():
        assert place_of(variable_of(at)) == at
        assert type_at(at) is not None
    assert all(type_at(at) is not None for at in FLAGS.values())


# --- mistakes ---


def test_all_mistakes_of_all_sources_are_told_at_once(write: Write) -> None:
    """Each with its file and line, variable or flag, even where another source overrides it."""
    file = write(
        "mode: observ\n"
        "lisseners: []\n"
        "ops:\n"
        "  port: '9'\n"
        "upstreams:\n"
        "  - name: a\n"
        "  - name: b\n"
        "    urls: http://x\n"
        "log:\n"
        "jwt: [{issuer: i, audience: a}]\n"
    )
    environ = {
        "GATEKEEPER_OPS__PORT": "9090",
        "GATEKEEPER_OPS__HOSST": "x",
        "GATEKEEPER_DEADLINES__IDLE_S": "-1",
        "GATEKEEPER_CORS": '{"allow_origin": ["*"]}',
        "GATEKEEPER_JWT__7__ISSUER": "x",
    }
    assert told(file, environ, {"--port": 70000, "--prot": 1}) == [
        f"{file}:1: mode: This must be 'enforce' or 'observe'.",
        f"{file}:2: lisseners: This is not a setting; did you mean `listeners`?",
        f"{file}:4: ops.port: This must be a valid integer.",
        f"{file}:6: upstreams[0].urls: `urls` is missing.",
        f"{file}:8: upstreams[1].urls: This must be a list.",
        f"{file}:9: log: There is no value; write one.",
        f"{file}:10: jwt[0]: This needs exactly one of jwks_url and jwks_file.",
        "environment: GATEKEEPER_DEADLINES__IDLE_S: This must be greater than 0, not -1.",
        (
            "environment: GATEKEEPER_CORS.allow_origin: This is not a setting; did you mean"
            " `allow_origins`?"
        ),
        "environment: GATEKEEPER_JWT__7__ISSUER: There is no item 7: the list has 1.",
        (
            "environment: GATEKEEPER_OPS__HOSST: This is not a setting; did you mean"
            " `GATEKEEPER_OPS__HOST`?"
        ),
        "command line: --port: This must be less than or equal to 65535, not 70000.",
        "command line: --prot: This is not a flag for a setting; did you mean `--port`?",
    ]


def test_what_a_file_leaves_open_a_variable_may_supply(write: Write) -> None:
    """A required field may come from another source than its neighbours."""
    file = write("jwt: [{issuer: i, jwks_file: k}]\n")
    assert loaded(file, {"GATEKEEPER_JWT__0__AUDIENCE": "a"}, {}).jwt[0].audience == "a"


def test_a_setting_in_the_wrong_place_is_shown_the_right_one(write: Write) -> None:
    """``port`` at the top belongs to a listener."""
    assert told(write("port: 1\n"), {}, {}) == [
        f"{write('port: 1')}:1: port: This is not a setting; did you mean `listeners[0].port`?"
    ]
    assert "`GATEKEEPER_LISTENERS__0__PORT`" in told(None, {"GATEKEEPER_PORT": "80"}, {})[0]
    assert told(write("zzzzqq: 1\n"), {}, {})[0].endswith("This is not a setting.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must be a mapping"),
        ("name: [", "not valid YAML"),
        ("name: a\nname: b\n", "stands twice"),
        ("a: &x 1\nb: *x\n", "Anchors"),
        ("deadlines: {idle_s: .nan}\n", "finite"),
        ("ops: {port: true}\n", "ops.port: This must be a valid integer."),
        ("upstreams: [~]\n", "upstreams[0]: This must be a mapping."),
        ("1: x\n", "key must be text"),
    ],
)
def test_a_broken_file_is_a_list_of_mistakes(write: Write, text: str, message: str) -> None:
    """Never an exception, and what other sources say wrong is told beside it."""
    found = told(write(text), {"GATEKEEPER_NAMES": "x"}, {})
    assert message in found[0]
    assert any("GATEKEEPER_NAMES" in each for each in found)


def test_a_file_that_cannot_be_read_is_one_mistake(tmp_path: Path) -> None:
    """What the file might have said is not missed."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    environ = {"GATEKEEPER_UPSTREAMS__0__NAME": "a"}
    for file in (binary, tmp_path, tmp_path / "nowhere"):
        found = told(file, environ, {}, to_serve=True)
        assert len(found) == 1
        assert found[0].startswith(f"{file}: This cannot be read")


def test_an_empty_file_says_nothing(write: Write) -> None:
    """Only comments are as good as no file."""
    assert loaded(write("# nothing\n"), {}, {}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GATEKEEPER_ops__port", "1", "not a setting"),
        ("GATEKEEPER_LISTENERS__00__PORT", "1", "not a setting"),
        ("GATEKEEPER_MODE__X", "1", "not a setting"),
        ("GATEKEEPER_", "1", "not a setting"),
        ("GATEKEEPER_OPS__PORT", "", "no value"),
        ("GATEKEEPER_DATA_DIR", "", "no value"),
        ("GATEKEEPER_OPS__PORT", "1e3", "valid integer"),
        ("GATEKEEPER_NAME", "a\udcff", "not UTF-8"),
        ("GATEKEEPER_JWT", "[" * 5000, "JSON"),
        ("GATEKEEPER_JWT", '[{"issuer": 1, "issuer": 2}]', "stands twice"),
        ("GATEKEEPER_LISTENERS__0__CREDENTIALS", "jwt", "must be a list"),
        ("GATEKEEPER_LISTENERS__0__PROXY_PROTOCOL", "yes", "true or false"),
    ],
)
def test_a_broken_variable_is_a_mistake(name: str, value: str, message: str) -> None:
    """It is named, and says what would be right."""
    (found,) = told(None, {name: value}, {})
    assert found.startswith(f"environment: {name}: ")
    assert message in found


def test_a_flag_that_is_not_text_is_a_mistake() -> None:
    """Undecodable bytes of a command line are told, not passed on."""
    assert told(None, {}, {"--name": "a\udcff"}) == [
        "command line: --name: This is not UTF-8 text."
    ]


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes announces a service of our name in variables with our prefix."""
    environ = {
        "GATEKEEPER_SETTINGS": "x.yaml",
        "GATEKEEPER_SERVICE_HOST": "10.0.0.1",
        "GATEKEEPER_SERVICE_PORT": "8080",
        "GATEKEEPER_SERVICE_PORT_HTTP": "8080",
        "GATEKEEPER_PORT": "tcp://10.0.0.1:8080",
        "GATEKEEPER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "GATEKEEPER_PORT_8080_TCP_ADDR": "10.0.0.1",
        "GATEKEEPER_VALKEY_SERVICE_HOST": "10.0.0.2",
        "gatekeeper_x": "",
    }
    assert loaded(None, environ, {}) == Settings()


def test_a_variable_that_holds_a_secret_may_carry_our_prefix(write: Write) -> None:
    """It is known by the setting that names it; its value never shows."""
    file = write("secret: {env: GATEKEEPER_KEY}\n")
    assert isinstance(loaded(file, {"GATEKEEPER_KEY": "sk-secret"}, {}), Settings)
    assert "sk-secret" not in told(None, {"GATEKEEPER_KEY": "sk-secret"}, {})[0]


def test_a_key_written_in_the_wrong_place_is_not_repeated(write: Write) -> None:
    """A mistake says what is wanted, never what text was there."""
    file = write(
        "upstreams: [{name: a, urls: ['http://u:sk-1@h'], credential: sk-2}]\n"
        "secret: sk-3\nops: {port: sk-4}\nmode: sk-5\n"
    )
    found = told(file, {"GATEKEEPER_OPS__PORT": "sk-6"}, {"--port": "sk-7"})
    assert len(found) == 6
    assert "sk-" not in "".join(found)


@given(st.text(max_size=60))
def test_any_text_is_settings_or_mistakes(text: str) -> None:
    """No value of a variable raises, whatever the type of the setting."""
    for name in ("NAME", "OPS__PORT", "UPSTREAMS", "SECRET", "DEADLINES__IDLE_S"):
        found = load_settings(None, {f"GATEKEEPER_{name}": text}, {})
        assert isinstance(found, Settings) or all(isinstance(each, Mistake) for each in found)


# --- what the types cannot say ---


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("upstreams: [{name: a, urls: []}]", "upstreams[0].urls", "at least one"),
        ("upstreams: [{name: a, urls: ['ftp://x']}]", "upstreams[0].urls[0]", "http or https"),
        ("upstreams: [{name: a, urls: ['http://h?q']}]", "upstreams[0].urls[0]", "query"),
        ("upstreams: [{name: a, urls: ['http://h#f']}]", "upstreams[0].urls[0]", "query"),
        ("upstreams: [{name: a, urls: ['http://u@h']}]", "upstreams[0].urls[0]", "user name"),
        ("upstreams: [{name: a, urls: ['http://h:99999']}]", "upstreams[0].urls[0]", "http or"),
        ("upstreams: [{name: a, urls: ['http://[::1']}]", "upstreams[0].urls[0]", "http or"),
        ("upstreams: [{name: a, urls: ['http://']}]", "upstreams[0].urls[0]", "http or"),
        ("upstreams: [{name: a, urls: ['http://a b']}]", "upstreams[0].urls[0]", "printable"),
        ("upstreams: [{name: '', urls: ['http://a']}]", "upstreams[0].name", "empty"),
        (
            "upstreams: [{name: a, urls: ['http://a']}, {name: a, urls: ['http://a']}]",
            "upstreams[1].name",
            "upstreams[0]",
        ),
        (
            "upstreams: [{name: a, urls: ['http://a'], paths: [v1]}]",
            "upstreams[0].paths[0]",
            "start with /",
        ),
        ("upstreams: [{name: a, urls: ['http://a'], models: []}]", "upstreams[0].models", "empty"),
        ("watch: {stream: decisions}", "watch.stream", "needs a store"),
        ("secret: {}", "secret", "exactly one"),
        ("secret: {env: A, file: b}", "secret", "exactly one"),
        (
            "upstreams: [{name: a, urls: ['http://a'], credential: {}}]",
            "upstreams[0].credential",
            "exactly one",
        ),
        ("public_url: example.com", "public_url", "http or https"),
        ("listeners: []", "listeners", "at least one"),
        ("listeners: [{credentials: []}]", "listeners[0].credentials", "at least one"),
        ("listeners: [{credentials: [jwt]}]", "listeners[0].credentials", "no issuer"),
        (
            (
                "{listeners: [{}, {port: 81, credentials: [api_key, opaque]}], upstreams: ["
                "{name: a, urls: ['http://a']},"
                "{name: b, urls: ['http://b'], credential: {env: B}}]}"
            ),
            "listeners[1].credentials",
            "lets anybody in",
        ),
        ("listeners: [{trusted_proxies: [x]}]", "listeners[0].trusted_proxies[0]", "prefix"),
        (
            "listeners: [{trusted_proxies: [10.0.0.1/8]}]",
            "listeners[0].trusted_proxies[0]",
            "host bits",
        ),
        ("listeners: [{proxy_protocol: true}]", "listeners[0].proxy_protocol", "trusted_proxies"),
        (
            (
                "listeners: [{proxy_protocol: true, trusted_proxies: ['::1'],"
                " tls: {certificate: c, key: k}}]"
            ),
            "listeners[0].proxy_protocol",
            "combined with tls",
        ),
        ("listeners: [{}, {}]", "listeners[1].port", "listeners[0]"),
        ("ops: {port: 8080}", "ops.port", "taken"),
        ("jwt: [{issuer: i, audience: a}]", "jwt[0]", "exactly one"),
        ("jwt: [{issuer: i, audience: a, jwks_url: 'file:/x'}]", "jwt[0].jwks_url", "http"),
        ("jwt: [{issuer: i, audience: '', jwks_file: k}]", "jwt[0].audience", "empty"),
        (
            "jwt: [{issuer: i, audience: a, jwks_file: k, algorithms: []}]",
            "jwt[0].algorithms",
            "empty",
        ),
        ("cors: {allow_origins: ['https://a/']}", "cors.allow_origins[0]", "origin"),
        ("geoip: {feeds: [{id: a, format: asns}]}", "geoip.feeds[0]", "exactly one of url"),
        (
            "geoip: {feeds: [{id: a, format: asns, file: f, url: 'https://a/'}]}",
            "geoip.feeds[0]",
            "exactly one of url",
        ),
        (
            "geoip: {feeds: [{id: a, format: asns, file: f}, {id: a, format: csv, file: f}]}",
            "geoip.feeds[1].id",
            "twice",
        ),
        *(
            (f"geoip: {{feeds: [{{id: a, format: asns, url: '{url}'}}]}}", "geoip.feeds[0].url", m)
            for url, m in (
                ("http://lists.example/x", "must be https"),
                ("http://127.0.0.1.lists.example/x", "must be https"),
                ("file:///etc/passwd", "http or https"),
                ("https://1:key@lists.example/x", "user name"),
                ("https://lists.example/x#y", "fragment"),
                ("https://lists.example/{day}", "braces"),
            )
        ),
        (
            "geoip: {feeds: [{id: a, format: asns, file: f, credential: {env: A}}]}",
            "geoip.feeds[0].credential",
            "Only a url",
        ),
        (
            "geoip: {feeds: [{id: a, format: asns, url: 'https://a/', credential: {}}]}",
            "geoip.feeds[0].credential",
            "exactly one of env",
        ),
        ("geoip: {feeds: [{id: a, format: mmdb, file: f, kind: tor}]}", "geoip.feeds[0]", "itself"),
        (
            "geoip: {feeds: [{id: a, format: asns, file: f, owner: x, owner_country: UK}]}",
            "geoip.feeds[0].owner_country",
            "GB",
        ),
        (
            "geoip: {feeds: [{id: a, format: asns, file: f, owner_country: DE}]}",
            "geoip.feeds[0].owner_country",
            "needs an owner",
        ),
        ("admin: {port: 9090}", "admin.port", "taken"),
        ("admin: {port: 8080}", "admin.port", "taken"),
        ("admin: {hosts: ['gate.example:9091']}", "admin.hosts[0]", "without a port"),
        (
            f"step_up: {{{_VENDOR}, webhook_secrets: [{{env: B}}], vendor_key: {{}}}}",
            "step_up.vendor_key",
            "exactly one",
        ),
        (
            f"step_up: {{{_VENDOR}, vendor_key: {{env: A}}, webhook_secrets: []}}",
            "step_up.webhook_secrets",
            "needs this",
        ),
        (
            f"step_up: {{{_VENDOR}, vendor_key: {{env: A}}, webhook_secrets: [{{}}]}}",
            "step_up.webhook_secrets[0]",
            "exactly one",
        ),
        (
            f"step_up: {{{_VENDOR}, {_KEY}, vendor_pages: 'https://a/b'}}",
            "step_up.vendor_pages",
            "without a path",
        ),
        (f"step_up: {{{_KEY}, vendor: sandbox}}", "step_up.vendor_url", "sandbox needs this"),
        (
            f"step_up: {{{_KEY}, vendor: sandbox, vendor_url: 'ftp://a'}}",
            "step_up.vendor_url",
            "http or https",
        ),
    ],
)
def test_fields_must_fit_each_other(write: Write, text: str, place: str, message: str) -> None:
    """One mistake, at the line and place of the field to change."""
    file = write(f"{text}\n")
    (found,) = told(file, {}, {})
    assert found.startswith(f"{file}:1: {place}: ")
    assert message in found


def test_two_issuers_of_one_name_are_refused(write: Write) -> None:
    """A token could not say which it means."""
    one = "{issuer: i, audience: a, jwks_file: k}"
    file = write(f"jwt: [{one}, {one}]\n")
    (found,) = told(file, {}, {})
    assert "jwt[1].issuer: This is listed twice." in found


def test_a_mistake_in_one_part_does_not_hide_those_of_others(write: Write) -> None:
    """Checks run on all parts whose fields are sound."""
    found = told(write("listeners: 5\nsecret: {}\nmode: x\n"), {}, {})
    assert [each.split(": ")[1] for each in found] == ["listeners", "secret", "mode"]


def test_feeds_are_kept_with_the_other_data(write: Write) -> None:
    """Their directory follows the data unless it is set; their files start from the settings'."""
    feed = "{id: a, format: asns, file: a.txt}"
    file = write(f"data_dir: here\ngeoip: {{feeds: [{feed}]}}\n")
    geoip = loaded(file, {}, {}).geoip
    assert geoip.feeds_dir == file.parent / "here" / "feeds"
    assert geoip.feeds[0].file == file.parent / "a.txt"
    elsewhere = {"GATEKEEPER_GEOIP__FEEDS_DIR": "/elsewhere"}
    assert loaded(file, elsewhere, {}).geoip.feeds_dir == Path("/elsewhere")


@pytest.mark.parametrize(
    "url",
    [
        "https://lists.example/x?suffix=tar.gz",
        "https://lists.example/dbip-{year}-{month}.mmdb.gz",
        "http://localhost:8000/x",
        "http://127.0.0.1/x",
        "http://[::1]:8000/x",
    ],
)
def test_urls_of_feeds(write: Write, url: str) -> None:
    """Https with a query and the month of today; http on this machine."""
    file = write(f"geoip: {{feeds: [{{id: a, format: csv, url: '{url}'}}]}}\n")
    assert loaded(file, {}, {}).geoip.feeds[0].url == url


def test_jwks_url_may_have_a_query(write: Write) -> None:
    """Some identity providers select their keys by one."""
    file = write("jwt: [{issuer: i, audience: a, jwks_url: 'https://idp/keys?p=b2c'}]\n")
    assert loaded(file, {}, {}).jwt[0].jwks_url == "https://idp/keys?p=b2c"


def test_serving_needs_an_upstream_files_and_secrets(write: Write) -> None:
    """What is wrong with this machine is told before anything starts, all at once."""
    file = write(
        "listeners: [{tls: {certificate: c.pem, key: k.pem}, credentials: [jwt]}]\n"
        "jwt: [{issuer: i, audience: a, jwks_file: keys.json}]\n"
        "secret: {env: NOT_SET}\n"
    )
    assert isinstance(loaded(file, {}, {}), Settings)
    found = told(file, {}, {}, to_serve=True)
    here = file.parent
    assert found == [
        (
            f"{file}:1: upstreams: This is empty: name a model endpoint here or by --upstream, "
            "or try --demo."
        ),
        (
            f"{file}:1: listeners[0].tls.certificate: {here}/c.pem cannot be read: "
            "No such file or directory."
        ),
        f"{file}:1: listeners[0].tls.key: {here}/k.pem cannot be read: No such file or directory.",
        f"{file}:2: jwt[0].jwks_file: {here}/keys.json cannot be read: No such file or directory.",
        f"{file}:3: secret.env: The variable NOT_SET is not set.",
    ]


def test_serving_with_all_in_place_is_fine(write: Write) -> None:
    """The same checks pass once files and variables are there."""
    file = write(
        "upstreams: [{name: a, urls: ['https://h/v1'], credential: {file: key}, ca_file: ca}]\n"
        "secret: {env: K}\n"
    )
    (file.parent / "key").touch()
    assert "upstreams[0].ca_file" in told(file, {"K": "x"}, {}, to_serve=True)[0]
    (file.parent / "ca").touch()
    assert loaded(file, {"K": "x"}, {}, to_serve=True).upstreams[0].name == "a"


# --- documents ---


def test_documents_are_in_step() -> None:
    """``make docs`` would change nothing."""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == settings_page()
    schema = json.loads((ROOT / "docs/settings.schema.json").read_text(encoding="utf-8"))
    assert schema == settings_schema()


def test_the_page_names_every_setting() -> None:
    """Each leaf has a row, each section its variable."""
    page = settings_page()
    for at in leaves():
        assert f"| `{at[-1]}` |" in page
    assert "`GATEKEEPER_LISTENERS__0__TLS__...`" in page
