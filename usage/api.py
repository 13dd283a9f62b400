"""What was spent, in the admin API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Field, Query, Router, Schema

from events.api import Moment
from lib.problems import documented
from usage import asking, export, reports, unpriced
from usage.reports import FILTERS, Question, Report

Metric = Literal["requests", "errors", "tokens", "cost", "cache", "first_byte", "duration"]
Group = Literal[
    "hour",
    "day",
    "week",
    "month",
    "account",
    "organization",
    "provider",
    "key",
    "model",
    "endpoint",
    "status",
    "ended",
    "verdict",
    "session",
]
Id = Annotated[int | None, Query(ge=0, le=asking.LARGEST)]
Text = Annotated[str, Query(max_length=asking.LONGEST_TEXT, pattern=r"^[^\x00]*$")]

router = Router(tags=["usage"])


class Asked(Schema):
    """What a report is about; a filter that is left out filters nothing."""

    metric: Metric = "requests"
    group: Group = "day"
    since: Moment | None = Field(None, description="seven days before its end unless told")
    until: Moment | None = Field(None, description="not included; now unless told")
    zone: str = Field("UTC", max_length=64, description="whose days: Europe/Berlin")
    account: Id = None
    key: Id = None
    organization: Text = ""
    model: Text = ""
    provider: Text = ""
    endpoint: Text = ""
    status: Id = None
    ended: Text = ""
    verdict: Text = ""
    session: Text = Field("", description="with group=session, or for records")

    def question(self) -> Question:
        """Return the question; raise BadReport for what cannot be asked."""
        filters = {name: getattr(self, name) for name in FILTERS}
        return asking.question(
            self.metric,
            self.group,
            since=self.since,
            until=self.until,
            zone=self.zone,
            filters=filters,
        )


class RowOut(Schema):
    """One member of the group: a time of the zone, an account's number, a model's name."""

    group: str | int
    label: str = Field(description="what people call it: an account's or a key's name")
    figures: dict[str, float | int | None]


class ReportOut(Schema):
    """A report; it takes whole quarters of an hour."""

    metric: str
    group: str
    since: datetime
    until: datetime
    zone: str
    columns: dict[str, str] = Field(
        description="how each is written: count, share (of 1), usd (in millionths), seconds"
    )
    rows: list[RowOut]
    total: dict[str, float | int | None]
    more: int = Field(description="how many rows are beyond the limit; an export has them all")


class UnpricedOut(Schema):
    """A model that used tokens nobody knows the price of."""

    model: str
    requests: int
    first: datetime
    last: datetime


@router.get("", response={200: ReportOut, **documented()})
def usage_report(
    request: HttpRequest,
    asked: Query[Asked],
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> ReportOut:
    """Report what was spent, by whom, and how well it went."""
    return _out(reports.report(asked.question()), limit)


@router.get("/export", response={200: None, **documented()})
def export_usage(
    request: HttpRequest,
    asked: Query[Asked],
    kind: Literal["report", "records"] = "report",
    format: Literal["csv", "json"] = "csv",
) -> Any:
    """Send the rows of a report, or the records themselves, as CSV or as lines of JSON."""
    answer: StreamingHttpResponse = export.answer(request, kind, format, asked.question())
    return answer


@router.get("/unpriced", response={200: list[UnpricedOut], **documented()})
def unpriced_models(request: HttpRequest) -> list[UnpricedOut]:
    """List the models that used tokens nobody knows the price of."""
    return [
        UnpricedOut(model=row.model, requests=row.requests, first=row.first, last=row.last)
        for row in unpriced.find()
    ]


def _out(report: Report, limit: int) -> ReportOut:
    asked = report.question
    return ReportOut(
        metric=asked.metric,
        group=asked.group,
        since=asked.since,
        until=asked.until,
        zone=asked.zone.key,
        columns=dict(report.columns),
        rows=[
            RowOut(group=row.value, label=row.label, figures=dict(row.figures))
            for row in report.rows[:limit]
        ],
        total=dict(report.total),
        more=max(0, len(report.rows) - limit),
    )
