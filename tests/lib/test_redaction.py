"""What looks like a secret is taken out of a text, wherever it stands; the rest stays."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lib.redaction import HIDDEN, LONGEST, redact, redactor

WORD = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=43, max_size=64
)
SECRETS = st.one_of(
    st.builds("sk-ant-oat01-{}".format, WORD),
    st.builds("sk-ant-ort01-{}".format, WORD),
    st.builds("rk_{}".format, WORD),
    st.builds("adm_{}".format, WORD),
    st.builds("whsec_{}=".format, WORD),
    st.builds("Bearer {}".format, WORD),
    st.builds("eyJ{}.eyJ{}.{}".format, WORD, WORD, WORD),
    st.builds("{}#{}".format, WORD, WORD),
    st.builds("https://user:{}@proxy.example:3128/".format, WORD),
    st.builds("?code={}&state={}".format, WORD, WORD),
    st.builds('"refresh_token": "{}"'.format, WORD),
    st.builds("password='{}'".format, WORD),
    st.builds("(b'x-api-key', b'{}')".format, WORD),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NASTY = st.sampled_from(["", "eyJ", "rk_", "Bearer ", "://", "#", '"', "'", "\\", "\n", "@", "sk-"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=st.tuples(TEXT, NASTY), secret=SECRETS, after=st.tuples(NASTY, TEXT))
@example(before=("", "Bearer "), secret="Bearer " + "0" * 43, after=("", ""))
@example(before=("", "eyJ"), secret="Bearer " + "0" * 43, after=("", ""))
@example(before=("Authorization: ", "Bearer "), secret="Bearer " + "0" * 43, after=("", ""))
@example(before=("", "Bearer "), secret="password='" + "0" * 43 + "'", after=("", ""))
@example(before=("eyJaaaaaaaaaaaa", ""), secret="A" * 43 + "#" + "b" * 43, after=("", ""))
@example(before=("rk_" + "a" * 30, ""), secret="sk-ant-oat01-" + "B" * 50, after=("", ""))
def test_no_secret_survives_wherever_it_stands(
    before: tuple[str, str], secret: str, after: tuple[str, str]
) -> None:
    shown = redact("".join([*before, secret, *after]))

    # No run of it either: half a token says where to look for the rest.
    words = [word for word in secret.replace(".", "#").split("#") if len(word) > 20]
    assert HIDDEN in shown
    for word in words:
        body = word[-30:-10]
        assert body not in shown or body in "".join([*before, *after])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("append to requests: ConnectionError; 12 wait", None),
        ("refresh account:5: invalid (refresh_interrupted), token:5 stays", None),
        ("/srv/app/lib/python3.11/site-packages/celery/app/trace.py line 453", None),
        ("rly_0123456789abcdef01234567 msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d D07b", None),
        ("model claude-opus-4-5-20251101, 3f2b8f8e-1111-4222-8333-0123456789ab", None),
        ("basic authentication is not what this host takes", None),
        ("a network_error of the disk-usage task-runner", None),
        ("GET https://api.example/v1/models?limit=1", None),
        ("redis://:hunter2@cache:6379/0 is away", f"redis://{HIDDEN}@cache:6379/0 is away"),
        ("GET /setup/abcDEF_123-xyz", f"GET /setup/{HIDDEN}"),
        ("Authorization: Basic dXNlcjpwdw==", f"Authorization: {HIDDEN}"),
        ("Cookie: sessionid=abc; csrftoken=def", f"Cookie: {HIDDEN}"),
        ("sk-or-v1-0123456789abcdef0123", f"sk-{HIDDEN}"),
        ("code=1 password: hunter2, user ada", f"code=1 password={HIDDEN}, user ada"),
        ("(b'x-relay-key', b'short')", f"(b'x-relay-key={HIDDEN})"),
        ("Invalid relay key. Ask the operator of this relay for a key.", None),
    ],
)
def test_the_rest_of_a_text_stays(text: str, shown: str | None) -> None:
    assert redact(text) == (text if shown is None else shown)


def test_what_stands_in_json_within_json_is_hidden() -> None:
    for depth in (1, 2):
        text: object = {"access_token": "qwerasdfzxcv", "password": "hunter2"}
        for _ in range(depth + 1):
            text = json.dumps(text)

        shown = redact(str(text))

        assert "qwer" not in shown
        assert "hunter" not in shown


def test_secrets_that_look_like_nothing_are_known_by_heart() -> None:
    hide = redactor(["correct horse battery", "staple", "", "abc"])

    assert hide("abc: correct horse battery staple") == f"abc: {HIDDEN} {HIDDEN}"


def test_a_cut_leaves_no_half_of_a_secret() -> None:
    text = "x " * (LONGEST // 2 - 10) + "rk_" + "A1b2" * 12

    assert "rk_" not in redact(text)
    assert len(redact(text)) < LONGEST + 10


@pytest.mark.parametrize(
    "piece", ["a", "eyJ", "sk-1", "://", "#a", '"token":"', "\\", "token =", "bearer ", "cookie: "]
)
def test_no_text_takes_long(piece: str) -> None:
    started = time.process_time()

    redact(piece * (4 * LONGEST // len(piece)))

    assert time.process_time() - started < 0.25
