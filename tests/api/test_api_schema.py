"""Whatever the schema allows or forbids: nothing breaks, and nothing undocumented is answered."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from accounts import adding
from accounts.models import Account
from accounts.states import Kind
from sessions_limit import keys
from sessions_limit.models import ClientKey, ClientSession
from tests.support.simulator import Simulator

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
NAMES = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.slow
def test_nothing_breaks(token: str, simulator: Simulator) -> None:
    assert _sweep(token, simulator, examples=1) == 32


@pytest.mark.slow
def test_nothing_breaks_however_often_it_is_tried(token: str, simulator: Simulator) -> None:
    assert _sweep(token, simulator, examples=100) == 32


def _sweep(token: str, simulator: Simulator, examples: int) -> int:
    """Try every operation with good and bad values; return how many operations there are."""
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_wsgi(
        "/api/openapi.json", get_wsgi_application(), headers=headers
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        for mode in MODES:
            things = {
                "account_id": _account(simulator).pk,
                "key_id": _key().pk,
                "uid": _session().uid,
            }
            _try(operation, mode, things, headers, examples)
    return len(operations)


def _try(
    operation: Any,
    mode: GenerationMode,
    things: dict[str, Any],
    headers: dict[str, str],
    examples: int,
) -> None:
    checks = [CHECKS.get_one(name) for name in NAMES]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 10,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_there=st.booleans())
    def attempt(case: Any, is_there: bool) -> None:
        if is_there:
            case.path_parameters |= {n: things[n] for n in case.path_parameters if n in things}
        response = case.call(headers=headers)
        assert response.status_code != 500, case.as_curl_command()
        case.validate_response(response, checks=checks)

    attempt()


def _account(simulator: Simulator) -> Account:
    """Return an account; a sweep may have removed the one before."""
    found = Account.objects.filter(name="swept", deleted_at=None).first()
    return found or adding.add_secret(Kind.API_KEY, "swept", simulator.api_key("swept"), "ada")


def _key() -> ClientKey:
    """Return a key; a sweep may have revoked the one before."""
    return keys.create("swept", by="ada")[0]


def _session() -> ClientSession:
    """Return a session of a client."""
    begun = {"started_at": timezone.now(), "last_seen_at": timezone.now()}
    return ClientSession.objects.get_or_create(uid="0" * 16, defaults={"key": _key()} | begun)[0]
