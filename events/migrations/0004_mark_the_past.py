from django.db import migrations, models


def mark_the_past(apps, _):
    """Ask no rule about what happened before there were rules."""
    apps.get_model('events', 'Event').objects.update(alerted_at=models.F('at'))


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0003_alerts'),
    ]

    operations = [
        migrations.RunPython(mark_the_past, migrations.RunPython.noop, elidable=True),
    ]
