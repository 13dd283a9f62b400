"""Holds a relay's records against the simulator's books and against what the clients saw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.books import COUNTS, NOTHING, Figures, Truth, figures, of_record
from tests.support.mixed_load import NUMBER, Seen

Entry = Mapping[str, Any]
Record = Mapping[str, Any]
REFUSED_KEY = 401


@dataclass
class Audit:
    """What was found: the truth of each record, and what is wrong with any.

    `unsure` are requests whose client hung up just then: more than one state of usage had been
    sent, and the relay may have got any of them. Their record must be one of these.
    """

    seen: Sequence[Seen]
    entries: Sequence[Entry]
    records: Sequence[Record]
    truths: list[Truth] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unsure: int = 0

    def __post_init__(self) -> None:
        self.entries = [e for e in self.entries if e["target"].startswith("/v1/messages")]
        self._by_id = {entry["request_id"]: entry for entry in self.entries}
        self._by_number: defaultdict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self._by_number[_number(entry)].append(entry)
        self._clients = {seen.relay_id: seen for seen in self.seen if seen.relay_id}
        self._wishes = {seen.wish.number: seen.wish for seen in self.seen}
        self._check_count()
        for record in self.records:
            self._check(record)
        self.wrong += self._unrecorded()

    def _check_count(self) -> None:
        """Each request that was let in has one record, and nothing else has one."""
        ids = Counter(record["request_id"] for record in self.records)
        self.wrong += [f"doubled: {name}" for name, count in ids.items() if count > 1]
        let_in = {seen.relay_id: seen for seen in self._clients.values() if _is_let_in(seen)}
        self.wrong += [f"no record of {let_in[name]}" for name in let_in.keys() - ids.keys()]
        # Who hung up before the answer knows no id; those the upstream met were let in for sure.
        silent = [seen for seen in self.seen if not seen.relay_id]
        met = sum(seen.wish.number in self._by_number for seen in silent)
        others = len(ids.keys() - let_in.keys())
        if not met <= others <= len(silent):
            self.wrong.append(f"{others} records of {met} to {len(silent)} hang-ups")

    def _check(self, record: Record) -> None:
        seen, entry = (
            self._clients.get(record["request_id"]),
            self._by_id.get(record["upstream_id"]),
        )
        if seen is not None and seen.upstream_id != record["upstream_id"]:
            self._complain(record, f"the client was told of {seen.upstream_id}")
        if entry is not None and _account(entry) != record["account_name"].partition("@")[0]:
            self._complain(record, f"it was {_account(entry)} that answered")
        wish = seen.wish if seen else self._wishes[_number(entry)] if entry else None
        if wish is not None and wish.key != record["key_name"]:
            self._complain(record, f"it was {wish.key} that asked")
        if wish is not None and self._is_doubled(wish.number) != record["possible_double_spend"]:
            self._complain(record, "its double spend is told wrongly")
        possible, told = _possible(seen, entry), of_record(record)
        self.unsure += len(possible) > 1
        if told not in possible:
            self._complain(record, f"{told} is none of {possible}")
            told = possible[-1]
        self.truths.append(
            Truth(
                account=_account(entry) if entry else "",
                key=record["key_name"],
                model=told["answered_by"] or record["model"],
                figures=told,
            )
        )

    def _is_doubled(self, number: int) -> bool:
        """Tell whether an attempt was lost without an answer, and another one followed it."""
        tries = self._by_number.get(number, [])
        return any(entry["ended"] == "cut" and not _reached(entry) for entry in tries[:-1])

    def _unrecorded(self) -> Iterator[str]:
        """Yield answers that were sent whole and that no record speaks of, without an excuse."""
        known = {record["upstream_id"] for record in self.records}
        hung_up = {seen.wish.number for seen in self.seen if not seen.relay_id}
        for entry in self.entries:
            if (
                _reached(entry)
                and entry["request_id"] not in known
                and _number(entry) not in hung_up
            ):
                yield f"no record of what {entry['request_id']} told: {entry['told']}"

    def _complain(self, record: Record, what: str) -> None:
        facts = ("request_id", "upstream_id", "status", "ended", "trail", *COUNTS)
        self.wrong.append(f"{what}: { {name: record[name] for name in facts} }")


def _possible(seen: Seen | None, entry: Entry | None) -> list[Figures]:
    """Return what the relay can know: at least what its client got, at most what was sent."""
    if entry is None:
        return [NOTHING]
    known = [NOTHING, *map(figures, entry["told"])]
    got = seen.size if seen is not None else 0
    least = sum(told["at"] <= got for told in entry["told"])
    return known[least : _reached(entry) + 1]


def _reached(entry: Entry) -> int:
    """Return how many states of usage were sent with their last byte."""
    return sum(told["at"] <= entry["sent_bytes"] for told in entry["told"])


def _is_let_in(seen: Seen) -> bool:
    return seen.status != REFUSED_KEY


def _account(entry: Entry) -> str:
    return str(entry["account"]).partition("@")[0]


def _number(entry: Entry) -> int:
    return int({name.lower(): value for name, value in entry["headers"]}[NUMBER])
