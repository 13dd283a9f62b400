from importlib import import_module

from django.db import migrations

# Buckets have other bounds now, so that those of the records are found once more.
anew = import_module("usage.migrations.0006_sum_what_is_there").sum_what_is_there


class Migration(migrations.Migration):
    dependencies = [("usage", "0008_a_column_per_bucket")]
    operations = [migrations.RunPython(anew, migrations.RunPython.noop)]
