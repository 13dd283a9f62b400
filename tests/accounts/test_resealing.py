"""Sealing everything anew under a new key while refreshes go on, so that the old key can go."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, models
from django.utils import timezone
from pydantic import SecretStr

from accounts import adding, linking, parking, resealing, tokens
from accounts.models import Account, Credential, Egress, LinkFlow
from accounts.oauth import Grant
from accounts.parking import Pair
from events.models import Channel, Event
from lib.crypto import ring
from lib.sealed import Ciphertext
from tests.accounts.conftest import SESSION

NEW = SecretStr(base64.b64encode(bytes(range(32))).decode())
pytestmark = pytest.mark.django_db(transaction=True)

UseKeys = Callable[..., None]


@pytest.fixture
def use_keys(settings: Any) -> Iterator[UseKeys]:
    """Let CREDENTIAL_KEYS be the new key, with the old ones behind it or without them."""
    old = settings.CONFIG.credential_keys

    def use(*, old_too: bool) -> None:
        keys = (NEW, *old) if old_too else (NEW,)
        settings.CONFIG = settings.CONFIG.model_copy(update={"credential_keys": keys})
        ring.cache_clear()

    ring.cache_clear()
    yield use
    ring.cache_clear()


def run(*words: str) -> tuple[dict[str, Any], bool]:
    """Run the command; return its answer and whether it ended well."""
    out = io.StringIO()
    try:
        call_command("credentials", "rotate-keys", "--json", *words, stdout=out)
    except CommandError:
        return json.loads(out.getvalue()), False
    return json.loads(out.getvalue()), True


def opened() -> list[str]:
    """Open every sealed value of the database."""
    return [ring().open(value.sealed, value.bound_to) for value in resealing._values(7)]


def pair_of(account: Account) -> Pair:
    assert account.credential_id is not None
    grant = Grant("sk-ant-oat01-parked", "sk-ant-ort01-parked", timezone.now())
    return Pair(account.pk, account.credential_id, grant, "sk-ant-ort01-parked", timezone.now())


def test_every_sealed_column_opens_without_the_old_key(account: Account, use_keys: UseKeys) -> None:
    linking.begin(by="ada", session=SESSION)
    Egress.objects.create(account=account, url="socks5://ada:secret@127.0.0.1:1")
    for number in range(5):
        adding.add_secret("api_key", f"key {number}", f"secret-{number}", by="ada")
    parking.park(pair_of(account))
    before = opened()
    use_keys(old_too=True)

    answer, is_done = run("--batch", "2")

    assert is_done
    assert answer["old_keys_can_go"] is True
    assert answer["resealed"] == len(before) + 1
    use_keys(old_too=False)
    assert opened() == before
    assert Credential.objects.get(account=account).refresh_token.startswith("sk-ant-ort01-")
    assert Egress.objects.get().url.startswith("socks5://ada")
    assert LinkFlow.objects.latest("created_at").url
    (parked,) = parking.everything()
    assert parked.refresh_token == "sk-ant-ort01-parked"
    event = Event.objects.get(kind="credentials.rotated")
    assert event.data == {"resealed": len(before) + 1, "remaining": 0, "unopened": 0}


def test_no_sealed_column_is_left_out() -> None:
    channel = Channel.objects.create(
        name="hook", kind="webhook", url="https://hook.test", secret="whsec_x"
    )

    places = [value.place for value in resealing._values(1)]

    assert places == [f"events.channel.{name} {channel.pk}" for name in ("url", "secret")]


def test_a_second_run_finds_nothing_to_do(account: Account, use_keys: UseKeys) -> None:
    use_keys(old_too=True)
    run()

    answer, is_done = run()

    assert (answer["resealed"], is_done) == (0, True)


def test_what_opens_with_no_key_is_named_and_keeps_the_old_keys(
    account: Account, use_keys: UseKeys
) -> None:
    damaged = adding.add_secret("api_key", "damaged", "secret-1", by="ada").credential
    assert damaged is not None
    with connection.cursor() as cursor:
        swapped = Credential.objects.filter(account=account).values_list("access_token", flat=True)
        cursor.execute(
            "UPDATE accounts_credential SET access_token = %s WHERE access_token = %s",
            [str(swapped[0]), str(damaged.__dict__["access_token"])],
        )
    use_keys(old_too=True)

    answer, is_done = run()

    assert not is_done
    assert answer["unopened"] == [f"accounts.credential.access_token {damaged.pk}"]
    assert "secret" not in json.dumps(answer)
    use_keys(old_too=False)
    assert Credential.objects.get(account=account).access_token.startswith("sk-ant-oat01-")


@pytest.mark.parametrize("change", ["written", "deleted"])
def test_whoever_writes_meanwhile_wins(account: Account, use_keys: UseKeys, change: str) -> None:
    use_keys(old_too=True)
    value = next(v for v in resealing._values(1) if v.column.attname == "access_token")
    row = Credential.objects.get(pk=value.pk)
    row.access_token = "sk-ant-oat01-newer"
    row.save(update_fields=["access_token"]) if change == "written" else row.delete()

    assert not resealing._swap(value, Ciphertext(ring().seal("older", value.bound_to)))

    stored = Credential.objects.filter(pk=value.pk).first()
    assert (stored.access_token if stored else None) in ("sk-ant-oat01-newer", None)


def test_a_parked_pair_that_was_committed_meanwhile_stays_gone(
    account: Account, use_keys: UseKeys
) -> None:
    pair = pair_of(account)
    parking.park(pair)
    use_keys(old_too=True)
    parking.forget(pair)

    assert parking.reseal() == parking.Resealed()
    assert parking.everything() == []


def test_without_redis_the_old_keys_stay(
    account: Account, use_keys: UseKeys, settings: Any
) -> None:
    use_keys(old_too=True)
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    answer, is_done = run()

    assert (answer["parked_unknown"], is_done) == (True, False)


def test_a_process_that_still_seals_with_the_old_key_is_noticed(
    account: Account, use_keys: UseKeys, settings: Any
) -> None:
    old_ring = ring()
    use_keys(old_too=True)
    value = next(v for v in resealing._values(1) if v.column.attname == "access_token")

    def write(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """Seal with the old key whenever credentials are read."""
        if sql.startswith("SELECT") and "accounts_credential" in sql:
            old = Ciphertext(old_ring.seal("sk-ant-oat01-x", value.bound_to))
            Credential.objects.filter(pk=value.pk).update(access_token=old)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(write):
        answer, is_done = run()

    assert (answer["remaining"] > 0, is_done) == (True, False)


def test_refreshes_go_on_while_everything_is_sealed_anew(
    link: Callable[..., Account], use_keys: UseKeys
) -> None:
    accounts = [link(email) for email in ("ada@example.com", "bob@example.com")]
    use_keys(old_too=True)
    stop = threading.Event()
    answers = []

    def rotate() -> None:
        try:
            while not stop.is_set():
                answers.append(resealing.reseal(1, by="test"))
        finally:
            connection.close()

    async def refresh() -> None:
        for _ in range(4):
            await asyncio.gather(*(tokens.refresh(account.pk, by="ada") for account in accounts))
        await tokens.settled()

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        asyncio.run(refresh())
    finally:
        stop.set()
        thread.join()
    assert resealing.reseal(by="test").is_done

    use_keys(old_too=False)
    assert all(not answer.unopened for answer in answers)
    for account in accounts:
        account.refresh_from_db()
        newest = account.credentials.aggregate(newest=models.Max("generation"))["newest"]
        assert account.credential is not None
        assert (account.status, account.credential.generation, newest) == ("active", 5, 5)
    assert len(opened()) == 2 * 2 * 5 + 2 * 2
    asyncio.run(tokens.refresh(accounts[0].pk, by="ada"))
    accounts[0].refresh_from_db()
    assert accounts[0].credential is not None
    assert accounts[0].credential.generation == 6


def test_the_command_says_in_words_what_came_of_it(account: Account, use_keys: UseKeys) -> None:
    use_keys(old_too=True)
    out = io.StringIO()

    call_command("credentials", "rotate-keys", stdout=out)

    assert "sealed anew" in out.getvalue()
    assert "The older keys can go." in out.getvalue()
    with pytest.raises(CommandError):
        call_command("credentials", "rotate-keys", "--batch", "0")
