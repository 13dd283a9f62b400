"""The settings: where they come from, what is wrong with them, and which secrets are made."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_project.config import SECRETS, Config, ConfigError, forget_settings, load

ROOT = Path(__file__).resolve().parents[2]
KEY = base64.b64encode(bytes(range(32))).decode()
LONG = "s3cr3t-" * 8
POSTGRES = "postgresql://user:pa55word@host:5432/db"
GIVEN = {
    "DATABASE_URL": POSTGRES,
    "SECRET_KEY": LONG,
    "KEY_PEPPER": LONG + "pepper",
    "CREDENTIAL_KEYS": KEY,
}


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path) -> Iterator[None]:
    """An environment without settings, in an empty folder of its own."""
    before, folder = dict(os.environ), Path.cwd()
    forget_settings()
    os.environ["CAROUSEL_DATA_DIR"] = str(tmp_path / "data")
    os.chdir(tmp_path)
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(before)


def put(**values: str) -> None:
    os.environ.update(values)


def refusal(**values: str) -> str:
    put(**values)
    with pytest.raises(ConfigError) as raised:
        load()
    # Else a traceback would show what the message leaves out.
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    return str(raised.value)


def test_nothing_needs_to_be_set(tmp_path: Path) -> None:
    config = load()

    assert config.embedded
    assert config.data_dir == tmp_path / "data"
    assert config.upstream_base_url == "https://api.anthropic.com"
    assert config.relay_timeout == 300
    assert config.routing_strategy == "round_robin"
    assert config.sticky_sessions
    assert config.idle_limit.days == 7
    assert (config.public_url, config.trusted_proxies) == ("", ())


def test_the_data_folder_is_var_by_default() -> None:
    assert Config.model_fields["carousel_data_dir"].default == Path("var")


WRONG = {
    "CREDENTIAL_KEYS": "not-32-bytes-" + LONG,
    "DATABASE_URL": "mysql://user:pa55word@host/db",
    "DRAIN_GRACE": "-1",
    "DRAIN_SECONDS": "nan",
    "IDLE_AFTER": "inf",
    "KEY_PEPPER": "pa55word",
    "LOG_LEVEL": "LOUD",
    "OAUTH_AUTHORIZE_URL": "claude.ai/oauth",
    "OAUTH_REDIRECT_URI": "javascript:alert(1)",
    "OAUTH_TOKEN_URL": "",
    "PUBLIC_URL": "https://",
    "REDIS_URL": "http://user:pa55word@host",
    "RELAY_TIMEOUT": "soon",
    "ROUTING_STRATEGY": "at_random",
    "SECRET_KEY": "pa55word-too",
    "SQLITE_BUSY_TIMEOUT": "0",
    "STICKY_SESSIONS": "perhaps",
    "TRUSTED_PROXIES": "10.0.0.0/8, 10.0.0.300",
    "UPSTREAM_BASE_URL": "ftp://example.com",
}


def test_every_wrong_value_is_listed_at_once_by_its_name() -> None:
    told = refusal(**WRONG)

    lines = [line.strip() for line in told.splitlines()[1:]]
    assert sorted(line.partition(":")[0] for line in lines) == sorted(WRONG)
    assert "pa55word" not in told
    assert LONG not in told


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_value_is_listed_by_its_name(name: str) -> None:
    told = refusal(**{name: WRONG[name]})

    assert f"{name}: " in told
    assert "pa55word" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://user:pa55word\u2100@host/db"),
        ("DATABASE_URL", "postgresql://user:pa55word@[::1/db"),
        ("DATABASE_URL", "postgresql://user:pa55word@host:pa55word/db"),
        ("DATABASE_URL", "postgresql://host/db\npa55word"),
        ("REDIS_URL", "redis://:pa55word@host:99999/0"),
        ("REDIS_URL", "redis://:pa55\nword@host/0"),
        ("PUBLIC_URL", "https://relay.example.com\nhttps://pa55word"),
        ("PUBLIC_URL", "https://relay example.com"),
        ("UPSTREAM_BASE_URL", "https://user:pa55word/@host"),
        ("CREDENTIAL_KEYS", KEY + "\npa55word"),
        ("CREDENTIAL_KEYS", "pa55word-é"),
        ("CREDENTIAL_KEYS", f"{KEY},pa55word"),
        ("RELAY_TIMEOUT", "300\n# pa55word"),
        ("TRUSTED_PROXIES", "10.0.0.0/8\n"),
    ],
)
def test_junk_is_refused_by_name_and_no_secret_is_shown(name: str, value: str) -> None:
    if name == "TRUSTED_PROXIES":
        put(TRUSTED_PROXIES=value)
        assert load().trusted_proxies == ("10.0.0.0/8",)
        return

    told = refusal(**{name: value})

    assert f"{name}: " in told
    assert "pa55" not in told


def test_secrets_are_required_when_a_database_is_given_and_listed_with_the_rest() -> None:
    told = refusal(DATABASE_URL=POSTGRES, SECRET_KEY=" \n", RELAY_TIMEOUT="0")

    for name in ("SECRET_KEY", "CREDENTIAL_KEYS", "KEY_PEPPER"):
        assert f"{name}: required when DATABASE_URL is set" in told
    assert "RELAY_TIMEOUT: " in told
    assert "pa55word" not in told


def test_with_a_database_no_secret_is_made(tmp_path: Path) -> None:
    put(**GIVEN)

    assert not load().embedded
    assert not (tmp_path / "data").exists()


def test_white_space_around_a_value_does_not_count() -> None:
    put(
        **{name: f" {value}\n" for name, value in GIVEN.items()},
        PUBLIC_URL="https://relay.example.com/ \n",
        RELAY_TIMEOUT=" 60\n",
        LOG_LEVEL=" DEBUG ",
        TRUSTED_PROXIES=" 10.0.0.0/8 ,, ::1 \n",
    )

    config = load()

    assert config.secret_key.get_secret_value() == LONG
    assert config.key_pepper.get_secret_value() == LONG + "pepper"
    assert [key.get_secret_value() for key in config.credential_keys] == [KEY]
    assert config.database_url == POSTGRES
    assert config.public_url == "https://relay.example.com"
    assert (config.relay_timeout, config.log_level) == (60, "DEBUG")
    assert config.trusted_proxies == ("10.0.0.0/8", "::1")


def test_several_credential_keys_keep_their_order() -> None:
    other = base64.b64encode(bytes(32)).decode()
    put(CREDENTIAL_KEYS=f"{other}, {KEY}")

    assert [key.get_secret_value() for key in load().credential_keys] == [other, KEY]


def test_the_settings_do_not_show_their_secrets() -> None:
    put(**GIVEN, REDIS_URL="redis://:pa55word@host/0")

    shown = repr(load())

    assert "pa55word" not in shown
    assert LONG not in shown
    assert KEY not in shown


def test_settings_come_from_a_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\nPUBLIC_URL=https://a.example.com\nexport RELAY_TIMEOUT='60'\nUNKNOWN=1\n"
    )
    del os.environ["CAROUSEL_ENV_FILE"]

    config = load()

    assert (config.public_url, config.relay_timeout) == ("https://a.example.com", 60)


def test_a_dotenv_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"SECRET_KEY=\xff\xfe")
    del os.environ["CAROUSEL_ENV_FILE"]

    assert ".env" in refusal()


FILES = {
    "settings.yaml": """
PUBLIC_URL: https://${HOST}.example.com
relay_timeout: 60
sticky_sessions: false
trusted_proxies: [10.0.0.0/8, "${NETWORK}"]
secret_key: ${SECRET}
""",
    "settings.toml": """
PUBLIC_URL = "https://${HOST}.example.com"
relay_timeout = 60
sticky_sessions = false
trusted_proxies = ["10.0.0.0/8", "${NETWORK}"]
secret_key = "${SECRET}"
""",
}


def write(name: str, text: str) -> None:
    Path(name).write_text(text)
    put(CAROUSEL_CONFIG=name)


@pytest.mark.parametrize("name", FILES)
def test_settings_come_from_a_file(name: str) -> None:
    write(name, FILES[name])
    put(HOST="relay", NETWORK="::1", SECRET=LONG)

    config = load()

    assert config.public_url == "https://relay.example.com"
    assert (config.relay_timeout, config.sticky_sessions) == (60, False)
    assert config.trusted_proxies == ("10.0.0.0/8", "::1")
    assert config.secret_key.get_secret_value() == LONG


@pytest.mark.parametrize("name", FILES)
def test_variables_that_are_missing_are_all_named(name: str) -> None:
    write(name, FILES[name])

    told = refusal()

    assert "HOST, NETWORK, SECRET" in told


def test_an_expansion_with_a_default_is_refused_rather_than_taken_literally() -> None:
    write("c.yaml", "public_url: ${HOST:-https://a.example.com}")

    assert "HOST:-" in refusal(HOST="x")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.yaml", "public_ulr: x\nnonsense: 1\n", "nonsense, public_ulr"),
        ("c.toml", "[relay]\ntimeout = 5\n", "relay"),
        ("c.yaml", "- a\n- b\n", "must hold names and values"),
        ("c.yaml", "", "must hold names and values"),
        ("c.yaml", 'relay_timeout: 5\nsecret_key: "pa55word\n', "c.yaml is not YAML at line"),
        ("c.yaml", "secret_key: pa55word: x\n", "c.yaml is not YAML at line 1"),
        ("c.toml", 'secret_key = "pa55word\n', "cannot read c.toml"),
        ("c.yaml", "relay_timeout: [5]\n", "RELAY_TIMEOUT: "),
        ("c.yaml", "secret_key: 5\n", "SECRET_KEY: "),
        ("c.yaml", "credential_keys: [5, pa55word]\n", "CREDENTIAL_KEYS: "),
        ("c.yaml", "public_url:\n", "PUBLIC_URL: "),
    ],
)
def test_a_file_that_is_wrong_is_refused(name: str, text: str, told: str) -> None:
    write(name, text)

    message = refusal()

    assert told in message
    assert "pa55word" not in message


def test_a_file_that_is_not_there_is_refused() -> None:
    assert "cannot read missing.yaml" in refusal(CAROUSEL_CONFIG="missing.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")

    assert "cannot read c.toml" in refusal(CAROUSEL_CONFIG="c.toml")


def test_the_environment_beats_the_dotenv_which_beats_the_file(tmp_path: Path) -> None:
    write("c.yaml", "relay_timeout: 1\ndrain_grace: 1\ndrain_seconds: 1\n")
    (tmp_path / ".env").write_text("RELAY_TIMEOUT=2\nDRAIN_GRACE=2\n")
    del os.environ["CAROUSEL_ENV_FILE"]
    put(RELAY_TIMEOUT="3")

    config = load()

    assert (config.relay_timeout, config.drain_grace, config.drain_seconds) == (3, 2, 1)


def values(config: Config) -> list[str]:
    keys = [key.get_secret_value() for key in config.credential_keys]
    return [config.secret_key.get_secret_value(), config.key_pepper.get_secret_value(), *keys]


def test_secrets_are_made_once_for_this_user_only(tmp_path: Path) -> None:
    first = load()

    files = sorted((tmp_path / "data").iterdir())
    assert [file.name for file in files] == sorted(f"{name}.secret" for name in SECRETS)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert len(set(values(first))) == 3
    assert values(load()) == values(first)


def test_a_secret_that_is_given_is_not_made(tmp_path: Path) -> None:
    put(SECRET_KEY=LONG)

    assert load().secret_key.get_secret_value() == LONG
    assert not (tmp_path / "data" / "secret_key.secret").exists()


def test_processes_that_start_at_once_agree() -> None:
    program = (
        "import sys; sys.stdin.read(1); from proxy_project.config import load; c = load(); "
        "print(c.secret_key.get_secret_value(), c.key_pepper.get_secret_value(), "
        "c.credential_keys[0].get_secret_value())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]

    told = [process.communicate(b"x", timeout=30)[0] for process in processes]

    assert len(set(told)) == 1
    assert len(told[0].split()) == 3


def test_an_empty_secret_stops_the_start(tmp_path: Path) -> None:
    load()
    (tmp_path / "data" / "key_pepper.secret").write_text("\n")

    assert "KEY_PEPPER: " in refusal()


def test_a_damaged_secret_stops_the_start_and_is_not_shown(tmp_path: Path) -> None:
    load()
    (tmp_path / "data" / "credential_keys.secret").write_text("pa55word" * 5)

    told = refusal()

    assert "CREDENTIAL_KEYS: " in told
    assert "pa55word" not in told


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "CAROUSEL_DATA_DIR: " in refusal(CAROUSEL_DATA_DIR=str(tmp_path / "file" / "data"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(set(WRONG) - {"CAROUSEL_DATA_DIR"})),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
)
def test_no_value_whatsoever_ends_in_anything_but_settings_or_a_list(name: str, value: str) -> None:
    os.environ[name] = value
    told = ""
    try:
        load()
    except ConfigError as error:
        told = str(error)
    finally:
        del os.environ[name]
    assert not told or f"{name}: " in told or "when DATABASE_URL is set" in told


def test_every_setting_is_in_the_example() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")

    named = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))

    assert {name.upper() for name in Config.model_fields} <= named


def test_the_example_changes_no_default(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    before = load()
    (tmp_path / ".env").write_text(text)
    del os.environ["CAROUSEL_ENV_FILE"]

    after = load()

    assert {**after.model_dump(), "carousel_data_dir": None} == {
        **before.model_dump(),
        "carousel_data_dir": None,
    }
