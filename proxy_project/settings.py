"""Django's settings, derived from the one typed Config; nothing here reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
import django_stubs_ext
from csp.constants import NONE, SELF

from proxy_project import logs, valkey
from proxy_project.config import load

# Generic classes of Django (`ModelAdmin[Event]`) are subscriptable for the type checker only.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
CONFIG = load()

SECRET_KEY = CONFIG.secret_key.get_secret_value()
DEBUG = False
ROOT_URLCONF = "proxy_project.urls"
ASGI_APPLICATION = "proxy_project.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

_public = urlsplit(CONFIG.public_url)
_origin = f"{_public.scheme}://{_public.netloc}"
_secure = _public.scheme == "https"
ALLOWED_HOSTS = [_public.hostname] if _public.hostname else ["localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [_origin] if _public.hostname else []
WEBSOCKET_ORIGINS = [_origin] if _public.hostname else ["http://localhost", "http://127.0.0.1"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _secure
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if _secure and CONFIG.trusted_proxies else None
)
SECURE_HSTS_SECONDS = 30 * 24 * 3600 if _secure else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_htmx",
    "ninja",
    "proxy_project",
    "relay",
    "accounts",
    "sessions_limit",
    "usage",
    "events",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
    }
}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Served from where they lie: there is no collecting step that could be forgotten.
STATIC_ROOT = None
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in (
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"min_length": 12}),
        ("CommonPasswordValidator", {}),
    )
]


def _database() -> dict[str, Any]:
    if not CONFIG.embedded and not CONFIG.database_url.startswith("sqlite"):
        return dict(
            dj_database_url.parse(CONFIG.database_url, conn_max_age=300, conn_health_checks=True)
        )
    # IMMEDIATE: a transaction that will write takes its lock at once, instead of failing half-way.
    # FULL: a refresh token that was reported as stored survives a power cut.
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": urlsplit(CONFIG.database_url).path or CONFIG.data_dir / "db.sqlite3",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": CONFIG.sqlite_busy_timeout,
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
            ),
        },
        # A file, like the real one: tests use it from many threads.
        "TEST": {"NAME": str(CONFIG.data_dir / "test.sqlite3")},
    }


DATABASES = {"default": _database()}

# Three dialects of one address: redis-py and Channels read unix://, Celery redis+socket://.
# Without REDIS_URL, commands find the private Valkey that `serve` runs for the same data folder.
REDIS_URL = CONFIG.redis_url or f"unix://{valkey.socket_path(CONFIG.data_dir)}"
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {
            "hosts": [{"address": REDIS_URL, "socket_timeout": 20, "socket_connect_timeout": 2}]
        },
    }
}

LOGGING_CONFIG = "proxy_project.logs.configure"
LOGGING = logs.settings(CONFIG)
