"""What a key may be given, checked whoever asks: the console, the API or the command line."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.apps import apps
from django.utils import timezone

from lib import names
from lib.peer import Network
from sessions_limit import labels
from sessions_limit.models import ClientKey
from usage import asking

LONGEST_NAME = 100
MOST_PATTERNS = 50
MOST_NETWORKS = 50
LONGEST_NETWORK = 64
# What a whole-number column holds on every database.
LARGEST = 2**31 - 1
# Less than the columns hold: a number that every reader of JSON reads exactly.
MOST_TOKENS = 10**15
MOST_USD = 10**9
MICRO = 1_000_000
LAST_YEAR = 9000
PATTERN = re.compile(r"[!-~]{1,128}")
WHOLE = re.compile(r"-?[0-9]{1,19}")
USD = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?")
Rule = Callable[[Any], Any]


class BadTerms(ValueError):
    """Some of what was given to a key cannot be; `errors` says it per field."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(" ".join(f"{name}: {text}" for name, text in errors.items()))
        self.errors = errors


def checked(**given: Any) -> dict[str, Any]:
    """Return what the columns of a key shall hold, for `issuing.create` and `update`.

    Take values as people and programs give them (RULES names the fields): numbers also as text,
    lists also as one text with blanks or commas, money in USD as `usd_per_day` and so on, which
    are kept in micro-USD as `cost_per_day`. None and "" clear a field. Raise BadTerms that tells
    of every field that cannot be.
    """
    errors: dict[str, str] = {}
    columns: dict[str, Any] = {}
    for name, value in given.items():
        if name not in RULES:
            errors[name] = "A key has no such setting."
            continue
        try:
            columns[COLUMNS.get(name, name)] = RULES[name](value)
        except ValueError as error:
            errors[name] = str(error)
    if errors:
        raise BadTerms(errors)
    return columns


def of(key: ClientKey) -> dict[str, Any]:
    """Return the terms of a key as `checked` takes them; money as Decimal, in USD."""
    told = {name: getattr(key, COLUMNS.get(name, name)) for name in RULES}
    return told | {name: usd(told[name]) for name in COLUMNS}


def told(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of a key as plain JSON under the names that people use."""
    return {NAMES.get(column, column): _told(column, value) for column, value in columns.items()}


def usd(micro: int | None) -> Decimal | None:
    """Return an amount in USD."""
    return None if micro is None else Decimal(micro) / MICRO


def _told(column: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return float(value) / MICRO if column in NAMES and value is not None else value


def _name(value: Any) -> str:
    # Measured first: a huge text is not looked through.
    name = names.plain(value) if isinstance(value, str) and len(value) <= LONGEST_NAME else ""
    if not name:
        raise ValueError(f"Give the key a name of 1 to {LONGEST_NAME} characters that can be read.")
    return name


def _owner(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ValueError(f"This is a text of {LONGEST_NAME} characters at most.")
    return names.plain(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("This is either true or false.")
    return value


def _moment(value: Any) -> datetime:
    """Return a time that lies ahead; one that names no zone is in UTC."""
    try:
        at = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if not isinstance(at, datetime):
            raise ValueError("no time")
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("This is a time such as 2030-12-31T18:00:00+01:00.") from None
    if at <= timezone.now():
        raise ValueError("This time has passed.")
    if at.year > LAST_YEAR:
        raise ValueError(f"This is later than the year {LAST_YEAR}.")
    return at


def _labels(value: Any) -> list[str]:
    try:
        return labels.checked(_words(value, "Labels"))
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}.") from None


def _patterns(value: Any) -> list[str]:
    patterns = list(dict.fromkeys(_words(value, "Patterns")))
    if odd := [pattern for pattern in patterns if not PATTERN.fullmatch(pattern)]:
        raise ValueError(f"{odd[0][:40]!r} is no pattern: 1 to 128 letters, digits and signs.")
    if len(patterns) > MOST_PATTERNS:
        raise ValueError(f"A key has {MOST_PATTERNS} patterns at most.")
    return patterns


def _networks(value: Any) -> list[str]:
    networks = list(dict.fromkeys(map(_network, _words(value, "Networks"))))
    if len(networks) > MOST_NETWORKS:
        raise ValueError(f"A key has {MOST_NETWORKS} networks at most.")
    return networks


def _network(text: str) -> str:
    try:
        # A scope ("%eth0") is no part of an address that a client shows.
        if len(text) > LONGEST_NETWORK or "%" in text:
            raise ValueError("no network")
        network: Network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no network: write it as 192.0.2.0/24.") from None
    # Clients with an IPv4 address inside IPv6 are looked at as IPv4 (lib/peer.py).
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        inner = network.network_address.ipv4_mapped
        return str(ipaddress.ip_network((inner, network.prefixlen - 96)))
    return str(network)


def _words(value: Any, what: str) -> list[str]:
    """Return the words of a list, or of a text in which blanks or commas part them."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    if not isinstance(value, Iterable) or isinstance(value, dict | bytes):
        raise ValueError(f"{what} are a list of words.")
    words = list(value)
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"{what} are a list of words.")
    return words


def _account(value: Any) -> int:
    """Return the id of an account of the pool, given by its id or its name."""
    accounts = apps.get_model("accounts.Account")._default_manager.filter(deleted_at=None)
    number = _read(value)
    if number is not None:
        found = accounts.filter(pk=number)
    elif isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable():
        found = accounts.filter(name=value)
    else:
        found = accounts.none()
    pk = found.values_list("pk", flat=True).first()
    if pk is None:
        raise ValueError("There is no such account.")
    return int(pk)


def _whole(lowest: int, highest: int) -> Rule:
    def rule(value: Any) -> int:
        number = _read(value)
        if number is None or not lowest <= number <= highest:
            raise ValueError(f"This is a whole number from {lowest} to {highest}.")
        return number

    return rule


def _read(value: Any) -> int | None:
    """Return a whole number that a column of 8 bytes holds; None for anything else."""
    if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
        value = int(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if is_whole and -(2**63) <= value < 2**63 else None


def _cost(value: Any) -> int:
    """Return an amount of USD in micro-USD."""
    told = f"This is an amount in USD from 0 to {MOST_USD}, with 6 decimals at most."
    if isinstance(value, str) and USD.fullmatch(value.strip()):
        value = Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(told)
    # NaN is in no range; asked of a Decimal it may even raise.
    if (isinstance(value, Decimal) and not value.is_finite()) or not 0 <= value <= MOST_USD:
        raise ValueError(told)
    amount = Decimal(str(value))
    if amount != amount.quantize(Decimal(1) / MICRO):
        raise ValueError(told)
    return int(amount * MICRO)


def _time_zone(value: Any) -> str:
    if not isinstance(value, str) or value not in asking.zones():
        raise ValueError("This is the name of a time zone, such as UTC or Europe/Berlin.")
    return value


def _or(empty: Any, rule: Rule) -> Rule:
    """Return the rule for a field that may be cleared."""
    return lambda value: empty() if value is None or value == "" else rule(value)


_limit = functools.partial(_or, lambda: None)
RULES: dict[str, Rule] = {
    "name": _name,
    "owner": _or(str, _owner),
    "enabled": _flag,
    "expires_at": _limit(_moment),
    "labels": _or(list, _labels),
    "model_patterns": _or(list, _patterns),
    "networks": _or(list, _networks),
    "pinned_account": _limit(_account),
    "passthrough": _or(bool, _flag),
    "requests_per_minute": _limit(_whole(1, LARGEST)),
    "tokens_per_minute": _limit(_whole(1, LARGEST)),
    "max_in_flight": _limit(_whole(1, LARGEST)),
    "max_sessions": _limit(_whole(-1, LARGEST)),
    "tokens_per_day": _limit(_whole(0, MOST_TOKENS)),
    "tokens_per_week": _limit(_whole(0, MOST_TOKENS)),
    "tokens_per_month": _limit(_whole(0, MOST_TOKENS)),
    "usd_per_day": _limit(_cost),
    "usd_per_week": _limit(_cost),
    "usd_per_month": _limit(_cost),
    "time_zone": _or(lambda: "UTC", _time_zone),
}
COLUMNS = {f"usd_per_{period}": f"cost_per_{period}" for period in ("day", "week", "month")}
NAMES = {column: name for name, column in COLUMNS.items()}
# The columns of all this.
KEPT = tuple(COLUMNS.get(name, name) for name in RULES)
