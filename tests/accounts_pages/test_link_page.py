"""The link page: notice, login, paste, preview, confirmation, and every way it can go wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Account, LinkFlow
from tests.support.simulator import Simulator

ADA = "ada@example.com"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _people(simulator: Simulator) -> None:
    simulator.person(ADA)


def test_no_login_begins_before_the_box_is_ticked(admin_client: Client) -> None:
    page = admin_client.get("/accounts/link/").content.decode()
    refused = admin_client.post("/accounts/link/", {}).content.decode()

    assert "against these terms" in page
    assert "Tick the box first" in refused
    assert not LinkFlow.objects.exists()


def test_an_account_is_linked_by_hand(admin_client: Client, simulator: Simulator) -> None:
    path, pasted = _begin(admin_client, simulator)

    preview = admin_client.post(path, {"pasted": pasted}, follow=True).content.decode()
    before = Account.objects.count()
    done = admin_client.post(f"{path}confirm/", {"name": "Ada"}, follow=True).content.decode()

    assert (ADA in preview, "max" in preview, "user:inference" in preview) == (True, True, True)
    assert before == 0
    assert "“Ada” is linked." in done
    assert Account.objects.get().status == "active"


@pytest.mark.parametrize("other", [False, True])
def test_linking_again_says_whom_and_warns_of_another_login(
    admin_client: Client, simulator: Simulator, other: bool
) -> None:
    path, pasted = _begin(admin_client, simulator)
    admin_client.post(path, {"pasted": pasted})
    admin_client.post(f"{path}confirm/", {"name": "Ada"})
    meant = Account.objects.get()
    if other:
        meant = Account.objects.create(name="Grace <b>", kind="oauth")
    query = f"?account={meant.pk}"

    asked = admin_client.get(f"/accounts/link/{query}").content.decode()
    begun = admin_client.post(f"/accounts/link/{query}", {"agree": "on"})
    flow = LinkFlow.objects.get(used_at=None)
    person = simulator.authorize(flow.url, ADA)
    preview = admin_client.post(begun.headers["location"], {"pasted": person}, follow=True)

    name = "Grace &lt;b&gt;" if other else "Ada"
    assert begun.headers["location"].endswith(query)
    assert f'“<span class="wrap">{name}</span>” again' in asked
    assert ("another login than that of" in preview.content.decode()) is other


@pytest.mark.parametrize("odd", ["", "x", "-1", "9" * 30, "٣", "77"])
def test_an_odd_account_to_link_again_is_none(admin_client: Client, odd: str) -> None:
    page = admin_client.get("/accounts/link/", {"account": odd})

    assert (page.status_code, "” again" in page.content.decode()) == (200, False)


def test_the_sign_in_page_opens_beside_and_learns_nothing(
    admin_client: Client, simulator: Simulator
) -> None:
    path, _ = _begin(admin_client, simulator)

    text = admin_client.get(path).content.decode()

    assert f'href="{simulator.url}/oauth/authorize?' in text
    assert 'target="_blank" rel="noopener noreferrer"' in text


def test_a_code_of_another_login_is_named_and_may_be_corrected(
    admin_client: Client, simulator: Simulator
) -> None:
    path, pasted = _begin(admin_client, simulator)
    _, foreign = _begin(admin_client, simulator)

    wrong = admin_client.post(path, {"pasted": foreign}).content.decode()
    exchanges = simulator.token_ledger()["calls"]
    right = admin_client.post(path, {"pasted": pasted})

    assert "This code belongs to another login." in wrong
    assert exchanges == []
    assert right.status_code == 302


@pytest.mark.parametrize("pasted", ["", "   ", "two words", "https://example.com/", "x" * 5000])
def test_what_is_no_code_is_said_in_the_form(
    admin_client: Client, simulator: Simulator, pasted: str
) -> None:
    path, _ = _begin(admin_client, simulator)

    answer = admin_client.post(path, {"pasted": pasted})

    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert simulator.token_ledger()["calls"] == []


def test_a_refused_code_ends_the_login_with_a_way_on(
    admin_client: Client, simulator: Simulator
) -> None:
    path, pasted = _begin(admin_client, simulator)
    state = pasted.partition("#")[2]

    refused = admin_client.post(path, {"pasted": f"wrong#{state}"})
    again = admin_client.post(path, {"pasted": pasted})

    assert "did not accept this code" in refused.content.decode()
    assert "Begin a new login" in refused.content.decode()
    assert again.status_code == 410


def test_an_old_login_is_over(admin_client: Client, simulator: Simulator) -> None:
    path, pasted = _begin(admin_client, simulator)
    LinkFlow.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    answer = admin_client.post(path, {"pasted": pasted})

    assert answer.status_code == 410
    assert "more than 10 minutes old" in answer.content.decode()


def test_a_login_of_another_session_is_refused(
    admin_client: Client, admin_user: object, simulator: Simulator
) -> None:
    path, pasted = _begin(admin_client, simulator)
    other = Client()
    other.force_login(admin_user)  # type: ignore[arg-type]

    answers = [other.get(path), other.post(path, {"pasted": pasted}), other.post(f"{path}confirm/")]

    assert [answer.status_code for answer in answers] == [410, 410, 410]
    assert simulator.token_ledger()["calls"] == []
    assert "begun in another session" in answers[0].content.decode()


def test_nothing_is_confirmed_before_the_code(admin_client: Client, simulator: Simulator) -> None:
    path, _ = _begin(admin_client, simulator)

    answer = admin_client.post(f"{path}confirm/")

    assert answer.status_code == 410
    assert not Account.objects.exists()


def test_two_tabs_link_two_accounts(admin_client: Client, simulator: Simulator) -> None:
    simulator.person("bea@example.com")
    first, pasted_ada = _begin(admin_client, simulator)
    second, pasted_bea = _begin(admin_client, simulator, "bea@example.com")

    for path, pasted in ((second, pasted_bea), (first, pasted_ada)):
        admin_client.post(path, {"pasted": pasted})
        admin_client.post(f"{path}confirm/")

    assert set(Account.objects.values_list("name", flat=True)) == {ADA, "bea@example.com"}


def test_confirming_twice_makes_one_account(admin_client: Client, simulator: Simulator) -> None:
    path, pasted = _begin(admin_client, simulator)
    admin_client.post(path, {"pasted": pasted})

    for _ in range(2):
        admin_client.post(f"{path}confirm/", {"name": "Ada"})

    assert Account.objects.count() == 1
    assert admin_client.get(path).headers["location"] == "/accounts/"


def test_linking_again_is_said_and_keeps_the_account(
    admin_client: Client, simulator: Simulator
) -> None:
    for name in ("Ada", "Somebody else"):
        path, pasted = _begin(admin_client, simulator)
        preview = admin_client.post(path, {"pasted": pasted}, follow=True).content.decode()
        admin_client.post(f"{path}confirm/", {"name": name})

    assert "This account is in the pool already" in preview
    assert Account.objects.get().name == "Ada"


def test_an_unreadable_profile_can_still_be_linked(
    admin_client: Client, simulator: Simulator
) -> None:
    path, pasted = _begin(admin_client, simulator)
    simulator.script({"path": "/api/oauth/profile"}, status=500, times=None)

    preview = admin_client.post(path, {"pasted": pasted}, follow=True).content.decode()
    admin_client.post(f"{path}confirm/")

    assert "did not tell whose account this is" in preview
    assert Account.objects.count() == 1


def _begin(client: Client, simulator: Simulator, email: str = ADA) -> tuple[str, str]:
    path = client.post("/accounts/link/", {"agree": "on"}).headers["location"]
    flow = LinkFlow.objects.get(pk=path.split("/")[-2])
    return path, simulator.authorize(flow.url, email)
