"""Credentials at rest: sealed, bound to their row, readable with an older key."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.db import connection
from pydantic import SecretStr

from accounts import adding
from accounts.models import Account, Credential
from accounts.pool import load
from lib.crypto import DecryptError, ring

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forgets_the_ring() -> Iterator[None]:
    ring.cache_clear()
    yield
    ring.cache_clear()


def add(name: str) -> Credential:
    account = adding.add_secret("api_key", name, f"secret-of-{name}", by="ada")
    assert account.credential is not None
    return account.credential


def stored(credential: Credential) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, access_token FROM accounts_credential")
        rows = {str(row[0]).replace("-", ""): row[1] for row in cursor.fetchall()}
    return str(rows[credential.id.hex])


def test_a_secret_is_not_in_the_database() -> None:
    credential = add("one")

    assert "secret-of-one" not in stored(credential)
    assert Credential.objects.get().access_token == "secret-of-one"


def test_swapped_ciphertexts_do_not_open() -> None:
    one, two = add("one"), add("two")

    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE accounts_credential SET access_token = %s WHERE access_token = %s",
            [stored(two), stored(one)],
        )

    with pytest.raises(DecryptError) as raised:
        _ = Credential.objects.get(pk=one.pk).access_token
    assert "secret" not in str(raised.value)
    assert Credential.objects.get(pk=two.pk).access_token == "secret-of-two"
    assert [member.name for member in load().members] == ["two"]


def test_a_new_key_seals_and_the_old_one_still_opens(settings: LazySettings) -> None:
    old = add("old")
    key = SecretStr(base64.b64encode(bytes(range(32))).decode())
    keys = (key, *settings.CONFIG.credential_keys)
    settings.CONFIG = settings.CONFIG.model_copy(update={"credential_keys": keys})
    ring.cache_clear()

    new = add("new")

    assert Credential.objects.get(pk=old.pk).access_token == "secret-of-old"
    assert ring().is_stale(stored(old))
    assert not ring().is_stale(stored(new))


def test_without_its_key_a_credential_is_out_of_the_pool(settings: LazySettings) -> None:
    add("old")
    keys = (SecretStr(base64.b64encode(bytes(32)).decode()),)
    settings.CONFIG = settings.CONFIG.model_copy(update={"credential_keys": keys})
    ring.cache_clear()

    assert load().members == ()
    assert Account.objects.get().status == "active"
