"""Linking by the paste flow: what is accepted, what is refused, and what is asked upstream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from accounts import lifecycle, linking
from accounts.models import Account, Credential, LinkFlow
from accounts.pool import load
from events.models import Event
from tests.accounts.conftest import SESSION
from tests.support.simulator import Simulator

ADA = "ada@example.com"
pytestmark = pytest.mark.django_db

Begun = tuple[LinkFlow, str]


@pytest.fixture
def begun(simulator: Simulator) -> Begun:
    simulator.person(ADA)
    flow = linking.begin(by="ada", session=SESSION)
    return flow, simulator.authorize(flow.url, ADA)


def test_it_links_an_account_that_serves_at_once(link: Callable[..., Account]) -> None:
    account = link()

    (member,) = load().members
    assert (account.name, account.status, account.kind) == (ADA, "active", "oauth")
    assert (member.id, member.is_usable(timezone.now())) == (account.pk, True)
    assert member.secret.startswith("sk-ant-oat01-")
    assert (account.plan, account.tier) == ("max", "default_claude_max_20x")


def test_no_account_exists_before_the_confirmation(begun: Begun) -> None:
    flow, pasted = begun

    flow = linking.complete(flow.id, pasted, session=SESSION)
    preview = linking.preview(flow)

    assert not Account.objects.exists()
    assert (preview.email, preview.plan, preview.existing) == (ADA, "max", None)
    assert "user:inference" in preview.scopes
    assert preview.ends is not None


@pytest.mark.parametrize(
    "shape",
    [
        "{code}#{state}",
        "  {code}#{state}\n",
        "{code}",
        "https://platform.claude.com/oauth/code/callback?code={code}&state={state}",
    ],
)
def test_it_accepts_what_an_owner_may_paste(begun: Begun, shape: str) -> None:
    flow, pasted = begun
    code, _, state = pasted.partition("#")

    flow = linking.complete(flow.id, shape.format(code=code, state=state), session=SESSION)

    assert linking.preview(flow).email == ADA


@pytest.mark.parametrize(
    "pasted",
    [
        "",
        "   ",
        "#state",
        "two words",
        "https://platform.claude.com/oauth/code/callback?error=access_denied",
        "https://[broken",
        "x" * 5000,
        "cödé",
        "a\r\nb",
    ],
)
def test_it_says_that_something_is_not_a_code(
    begun: Begun, simulator: Simulator, pasted: str
) -> None:
    flow, _ = begun

    with pytest.raises(linking.NotACode):
        linking.complete(flow.id, pasted, session=SESSION)

    assert simulator.token_ledger()["exchanges"] == 0


def test_the_address_of_the_link_itself_is_not_a_code(begun: Begun, simulator: Simulator) -> None:
    flow, _ = begun

    with pytest.raises(linking.NotACode):
        linking.complete(flow.id, flow.url, session=SESSION)

    assert simulator.token_ledger()["exchanges"] == 0


def test_a_wrong_state_calls_nothing_and_leaves_the_link_usable(
    begun: Begun, simulator: Simulator
) -> None:
    flow, pasted = begun
    code = pasted.partition("#")[0]

    with pytest.raises(linking.WrongState):
        linking.complete(flow.id, f"{code}#{'w' * 43}", session=SESSION)

    assert simulator.token_ledger()["exchanges"] == 0
    assert linking.complete(flow.id, pasted, session=SESSION).used_at is not None


def test_a_used_link_calls_nothing(begun: Begun, simulator: Simulator) -> None:
    flow, pasted = begun
    linking.complete(flow.id, pasted, session=SESSION)

    with pytest.raises(linking.FlowUsed):
        linking.complete(flow.id, pasted, session=SESSION)

    assert simulator.token_ledger()["exchanges"] == 1


@pytest.mark.django_db(transaction=True)
def test_a_code_that_is_pasted_twice_at_once_is_exchanged_once(simulator: Simulator) -> None:
    simulator.person(ADA)
    flow = linking.begin(by="ada", session=SESSION)
    pasted = simulator.authorize(flow.url, ADA)

    def complete(_: int) -> bool:
        try:
            linking.complete(flow.id, pasted, session=SESSION)
        except linking.FlowUsed:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(complete, range(4))) == 1
    assert simulator.token_ledger()["exchanges"] == 1


def test_a_link_of_another_session_calls_nothing(begun: Begun, simulator: Simulator) -> None:
    flow, pasted = begun

    with pytest.raises(linking.ForeignFlow):
        linking.complete(flow.id, pasted, session="another session")

    assert simulator.token_ledger()["exchanges"] == 0


def test_only_the_session_that_began_can_confirm(begun: Begun) -> None:
    flow, pasted = begun
    linking.complete(flow.id, pasted, session=SESSION)

    with pytest.raises(linking.ForeignFlow):
        linking.confirm(flow.id, session="another session", by="eve")

    assert not Account.objects.exists()


def test_an_old_link_calls_nothing(begun: Begun, simulator: Simulator) -> None:
    flow, pasted = begun
    later = timezone.now() + timedelta(minutes=10)

    with pytest.raises(linking.FlowExpired):
        linking.complete(flow.id, pasted, session=SESSION, now=later)

    assert simulator.token_ledger()["exchanges"] == 0


@pytest.mark.parametrize("flow_id", ["00000000-0000-4000-8000-000000000000", "no id at all"])
def test_a_link_that_never_was_counts_as_expired(flow_id: str) -> None:
    with pytest.raises(linking.FlowExpired):
        linking.complete(flow_id, "code#state", session=SESSION)


def test_nothing_can_be_confirmed_before_the_code_came(begun: Begun) -> None:
    with pytest.raises(linking.NotCompleted):
        linking.confirm(begun[0].id, session=SESSION, by="ada")


def test_a_code_that_anthropic_refuses_is_said_to_be_refused(
    begun: Begun, simulator: Simulator
) -> None:
    flow, pasted = begun
    state = pasted.partition("#")[2]

    with pytest.raises(linking.ExchangeRefused, match="did not accept this code"):
        linking.complete(flow.id, f"{'c' * 43}#{state}", session=SESSION)

    with pytest.raises(linking.NotCompleted):
        linking.confirm(flow.id, session=SESSION, by="ada")


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ({"status": 429, "body": {"error": {"type": "rate_limit_error"}}}, linking.ExchangeRefused),
        ({"status": 403, "body": "<html>no</html>"}, linking.ExchangeRefused),
        ({"status": 200, "body": "<html>yes</html>"}, linking.ExchangeRefused),
        ({"status": 302, "headers": {"location": "/elsewhere"}}, linking.ExchangeRefused),
        ({"reset": True}, linking.ExchangeLost),
    ],
)
def test_a_confused_token_endpoint_makes_a_plain_error(
    begun: Begun, simulator: Simulator, action: dict[str, object], error: type[Exception]
) -> None:
    flow, pasted = begun
    simulator.script({"path": "/v1/oauth/token"}, **action)

    with pytest.raises(error) as raised:
        linking.complete(flow.id, pasted, session=SESSION)

    assert pasted.partition("#")[0] not in str(raised.value)
    assert len(simulator.requests("/v1/oauth/token")) == 1


def test_an_unreadable_profile_does_not_fail_the_linking(
    begun: Begun, simulator: Simulator
) -> None:
    flow, pasted = begun
    simulator.script({"path": "/api/oauth/profile"}, status=429, body={"error": "no"})

    flow = linking.complete(flow.id, pasted, session=SESSION)
    account = linking.confirm(flow.id, session=SESSION, by="ada")

    assert (account.email, account.plan) == (ADA, "")
    assert account.account_uuid == simulator.accounts()[ADA]["account_uuid"]


def test_a_login_that_says_nothing_of_itself_is_known_by_its_secret(
    begun: Begun, simulator: Simulator
) -> None:
    flow, pasted = begun
    simulator.script({"path": "/api/oauth/profile"}, status=403, body={"error": "scope"})
    simulator.script({"path": "/v1/oauth/token"}, omit=["account", "organization"])

    linking.complete(flow.id, pasted, session=SESSION)
    account = linking.confirm(flow.id, session=SESSION, by="ada")

    assert (account.account_uuid, account.name) == ("", "oauth")
    assert len(account.secret_hash) == 64


def test_s12_linking_the_same_account_again_keeps_one_row(link: Callable[..., Account]) -> None:
    first = link(name="my account")

    second = link(name="another name")

    assert (second.pk, second.name) == (first.pk, "my account")
    generations = Credential.objects.filter(account=first).order_by("grant")
    assert [(row.grant, row.generation) for row in generations] == [(1, 1), (2, 1)]
    assert second.credential == generations[1]
    assert Event.objects.filter(subject=first.subject, kind="account.relink").count() == 1


def test_a_relink_is_announced_before_it_is_confirmed(
    link: Callable[..., Account], simulator: Simulator
) -> None:
    account = link()
    flow = linking.begin(by="ada", session=SESSION)

    flow = linking.complete(flow.id, simulator.authorize(flow.url, ADA), session=SESSION)

    assert linking.preview(flow).existing == account


def test_a_relink_heals_an_invalid_account(link: Callable[..., Account]) -> None:
    account = link()
    Account.objects.filter(pk=account.pk).update(status="invalid", reason="refresh_rejected")

    account = link()

    assert (account.status, account.reason) == ("active", "")


def test_a_relink_leaves_a_disabled_account_disabled(link: Callable[..., Account]) -> None:
    lifecycle.disable(link(), by="ada")

    account = link()

    assert (account.status, account.reason) == ("inactive", "admin")


def test_a_relink_does_not_end_a_limit(link: Callable[..., Account]) -> None:
    until = timezone.now() + timedelta(hours=1)
    account = link()
    Account.objects.filter(pk=account.pk).update(status="invalid", limited_until=until)

    assert link().status == "rate_limited"


def test_one_email_in_two_organisations_makes_two_accounts(
    link: Callable[..., Account], simulator: Simulator
) -> None:
    first = link()
    flow = linking.begin(by="ada", session=SESSION)
    simulator.person(ADA, organization_uuid=str(uuid4()))

    linking.complete(flow.id, simulator.authorize(flow.url, ADA), session=SESSION)
    second = linking.confirm(flow.id, session=SESSION, by="ada")

    assert (first.name, second.name) == (ADA, f"{ADA} 2")


def test_a_second_confirmation_returns_the_same_account(begun: Begun) -> None:
    flow, pasted = begun
    linking.complete(flow.id, pasted, session=SESSION)

    first = linking.confirm(flow.id, session=SESSION, by="ada")
    second = linking.confirm(flow.id, session=SESSION, by="ada")

    assert first == second
    assert Credential.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_flows_of_one_account_confirmed_at_once_make_one_row(simulator: Simulator) -> None:
    simulator.person(ADA)
    flows = [linking.begin(by="ada", session=SESSION) for _ in range(2)]
    for flow in flows:
        linking.complete(flow.id, simulator.authorize(flow.url, ADA), session=SESSION)

    def confirm(flow: LinkFlow) -> int:
        try:
            return linking.confirm(flow.id, session=SESSION, by="ada").pk
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(confirm, [*flows, *flows]))

    assert made == {Account.objects.get().pk}
    assert Credential.objects.count() == 2


def test_the_tokens_leave_the_flow_with_the_confirmation(begun: Begun) -> None:
    flow, pasted = begun
    flow = linking.complete(flow.id, pasted, session=SESSION)
    assert flow.answer is not None

    linking.confirm(flow.id, session=SESSION, by="ada")

    flow.refresh_from_db()
    assert flow.answer is None


def test_flows_that_nobody_confirmed_are_deleted_with_their_tokens(begun: Begun) -> None:
    flow, pasted = begun
    linking.complete(flow.id, pasted, session=SESSION)
    young = linking.begin(by="ada", session=SESSION, now=timezone.now() + timedelta(minutes=5))

    assert linking.shred_expired(timezone.now() + timedelta(minutes=11)) == 1
    assert list(LinkFlow.objects.all()) == [young]


def test_no_secret_of_a_linking_is_logged_or_stored_in_the_clear(
    begun: Begun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    flow, pasted = begun
    code, _, state = pasted.partition("#")

    linking.complete(flow.id, pasted, session=SESSION)
    linking.confirm(flow.id, session=SESSION, by="ada")

    ours = [
        r.getMessage() for r in caplog.records if r.name.partition(".")[0] in ("accounts", "lib")
    ]
    rows = str(list(LinkFlow.objects.values())) + str(list(Credential.objects.values()))
    token = Credential.objects.get().access_token
    assert not any(secret in text for text in [*ours, rows] for secret in (code, state, token))
