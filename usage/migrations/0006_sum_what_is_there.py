from datetime import UTC, datetime

from django.db import migrations

from usage import latency, periods

BATCH = 1000


def sum_what_is_there(apps, schema_editor):
    records = apps.get_model("usage", "RequestRecord").objects.order_by("pk")
    marks = apps.get_model("usage", "DirtyPeriod").objects
    last = 0
    while batch := list(
        records.filter(pk__gt=last).only("started_at", "first_byte_at", "ended_at")[:BATCH]
    ):
        last = batch[-1].pk
        for record in batch:
            began, first = record.started_at.timestamp(), record.first_byte_at
            record.first_byte_bucket = latency.bucket(began, first and first.timestamp())
            record.duration_bucket = latency.bucket(began, record.ended_at.timestamp())
        records.bulk_update(batch, ["first_byte_bucket", "duration_bucket"])
        found = {periods.of(record.started_at) for record in batch}
        marks.bulk_create(
            [marks.model(period=one, marked_at=datetime.now(UTC)) for one in found],
            ignore_conflicts=True,
        )


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_sums")]
    operations = [migrations.RunPython(sum_what_is_there, migrations.RunPython.noop)]
