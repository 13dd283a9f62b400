"""A sealed column: only its row writes it, nobody searches it, and no dump shows it."""

from __future__ import annotations

import pytest
from django.core import serializers
from django.db import transaction

from accounts import adding
from accounts.models import Credential
from lib.crypto import DecryptError
from lib.sealed import Ciphertext

pytestmark = pytest.mark.django_db
SECRET = "pa55word"


@pytest.fixture
def credential() -> Credential:
    account = adding.add_secret("api_key", "one", SECRET, by="ada")
    assert account.credential is not None
    return account.credential


def test_it_is_opened_when_it_is_read(credential: Credential) -> None:
    row = Credential.objects.get(pk=credential.pk)

    assert isinstance(row.__dict__["access_token"], Ciphertext)
    assert row.access_token == SECRET


def test_it_is_opened_when_it_was_deferred(credential: Credential) -> None:
    row = Credential.objects.defer("access_token").get(pk=credential.pk)

    assert row.access_token == SECRET


def test_a_row_that_is_saved_again_keeps_its_ciphertext(credential: Credential) -> None:
    row = Credential.objects.get(pk=credential.pk)
    before = str(row.__dict__["access_token"])

    row.save()

    assert str(Credential.objects.get(pk=credential.pk).__dict__["access_token"]) == before


def test_it_cannot_be_searched(credential: Credential) -> None:
    for lookup in ("access_token", "access_token__contains", "access_token__in"):
        with pytest.raises(TypeError):
            Credential.objects.filter(**{lookup: SECRET}).exists()

    assert Credential.objects.filter(access_token__isnull=False).exists()


def test_a_plain_text_cannot_be_written_past_the_row(credential: Credential) -> None:
    with pytest.raises(TypeError) as raised, transaction.atomic():
        Credential.objects.filter(pk=credential.pk).update(access_token="another")

    assert "another" not in str(raised.value)
    assert Credential.objects.get(pk=credential.pk).access_token == SECRET


def test_a_dump_holds_the_ciphertext(credential: Credential) -> None:
    dumped = serializers.serialize("json", Credential.objects.all())

    assert SECRET not in dumped
    assert "access_token" in dumped


def test_rows_made_in_bulk_are_sealed_each_for_itself(credential: Credential) -> None:
    made = [
        Credential(account=credential.account, grant=1, generation=n, access_token=SECRET)
        for n in (8, 9)
    ]

    Credential.objects.bulk_create(made)

    stored = [Credential.objects.get(pk=row.pk) for row in made]
    assert [row.access_token for row in stored] == [SECRET, SECRET]
    assert len({str(row.__dict__["access_token"]) for row in stored}) == 2


def test_a_row_without_an_identity_has_no_place_to_seal_for() -> None:
    row = Credential(access_token=SECRET)
    row.pk = None

    with pytest.raises(DecryptError):
        Credential._meta.get_field("access_token").pre_save(row, add=True)
