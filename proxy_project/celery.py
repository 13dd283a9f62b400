"""The Celery application: the jobs' schedule and how they are run."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_project.settings")

from django.conf import settings

from lib import counters
from proxy_project import logs

SECOND, MINUTE, HOUR, DAY = 1.0, 60.0, 3600.0, 86_400.0
SCHEDULE = {
    "proxy_project.tasks.heartbeat": 10 * SECOND,
    "usage.tasks.drain_usage": SECOND,
    "usage.tasks.roll_up": 10 * SECOND,
    "usage.tasks.prune": HOUR,
    "accounts.tasks.drain_facts": SECOND,
    "accounts.tasks.prune_samples": HOUR,
    "accounts.tasks.refresh_tokens": 30 * SECOND,
    "accounts.tasks.recover_rate_limited": 30 * SECOND,
    "accounts.tasks.deactivate_idle": HOUR,
    "accounts.tasks.poll_usage": MINUTE,
    "accounts.tasks.check_profiles": 10 * MINUTE,
    "accounts.tasks.announce_grant_ends": HOUR,
    "accounts.tasks.shred_link_flows": MINUTE,
    "accounts.tasks.watch_pool": 30 * SECOND,
    "events.tasks.deliver_alerts": 5 * SECOND,
    "events.tasks.prune": HOUR,
    "accounts.tasks.purge_removed": DAY,
    "relay.tasks.refresh_models": MINUTE,
    "sessions_limit.tasks.drain_sightings": SECOND,
    "sessions_limit.tasks.note_key_use": 10 * SECOND,
    "sessions_limit.tasks.watch_budgets": MINUTE,
    "sessions_limit.tasks.expire_sessions": 30 * SECOND,
    "sessions_limit.tasks.prune_sessions": HOUR,
    "sessions_limit.tasks.clear_sign_ins": HOUR,
}


def _log_like_all_others(**_: object) -> None:
    """Set up logging as everywhere; without a receiver Celery would do it in its own way."""
    logs.configure(settings.LOGGING)


def _push_counters(**_: object) -> None:
    """Tell what jobs have counted; some job ends each second."""
    counters.deltas.role = "worker"
    if counters.deltas.is_due():
        counters.deltas.push()


def _push_the_rest(**_: object) -> None:
    counters.deltas.push()


signals.setup_logging.connect(_log_like_all_others)
signals.task_postrun.connect(_push_counters)
signals.worker_shutdown.connect(_push_the_rest)
signals.worker_process_shutdown.connect(_push_the_rest)
app = Celery("carousel", broker=settings.CELERY_BROKER_URL)
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    beat_schedule={
        # `expires` under the period: a worker that was away does not run yesterday's ticks.
        name: {"task": name, "schedule": period, "options": {"expires": period * 0.9}}
        for name, period in SCHEDULE.items()
    },
)
app.autodiscover_tasks(["proxy_project", "relay", "usage", "accounts", "sessions_limit", "events"])
