"""Every setting of Carousel, typed; with config_file.py the only reader of the environment."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from proxy_project.config_file import ConfigError, ConfigFile
from proxy_project.made import kept

Strategy = Literal[
    "round_robin",
    "weighted",
    "priority",
    "shuffle",
    "least_used",
    "soonest_reset",
    "headroom",
]
# The shortest and the longest wait, in seconds, of an exponential back-off.
Waits = Annotated[tuple[float, float], NoDecode]
Networks = Annotated[tuple[str, ...], NoDecode]
Secret = Annotated[SecretStr, Field(validate_default=True)]
SCOPES = (
    "org:create_api_key user:profile user:inference "
    "user:sessions:claude_code user:mcp_servers user:file_upload"
)


class Config(BaseSettings):
    """The settings; names are those of the environment in lower case. See .env.example."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)
    # Django looks for it at each `settings.CONFIG`; pydantic takes 4 us to say it is not there.
    _mask_wrapped: ClassVar[bool] = True

    # Both may hold a password.
    database_url: Annotated[str, Field(repr=False)] = ""
    redis_url: Annotated[str, Field(repr=False)] = ""
    carousel_data_dir: Path = Path("var")
    secret_key: Secret = SecretStr("")
    credential_keys: Annotated[tuple[SecretStr, ...], NoDecode, Field(validate_default=True)] = ()
    key_pepper: Secret = SecretStr("")
    metrics_token: SecretStr = SecretStr("")

    upstream_base_url: str = "https://api.anthropic.com"
    oauth_authorize_url: str = "https://claude.ai/oauth/authorize"
    oauth_token_url: str = "https://platform.claude.com/v1/oauth/token"
    oauth_client_id: str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
    oauth_redirect_uri: str = "https://platform.claude.com/oauth/code/callback"
    oauth_scopes: str = SCOPES

    relay_debug_headers: bool = False
    relay_timeout: Annotated[float, Field(gt=0, le=3600)] = 300.0
    routing_strategy: Strategy = "round_robin"
    routing_strategies: Annotated[dict[str, Strategy], NoDecode] = {}
    sticky_sessions: bool = True
    session_limit: bool = True
    session_client: Literal["key", "ip", "ip+ua"] = "key"
    session_max_concurrent: Annotated[int, Field(ge=-1)] = 3
    session_max_total: Annotated[int, Field(ge=0)] = 0
    session_max_in_flight: Annotated[int, Field(ge=-1)] = 32
    client_max_in_flight: Annotated[int, Field(ge=-1)] = 64
    session_idle_seconds: Annotated[float, Field(ge=1, le=86400)] = 300.0
    session_max_seconds: Annotated[float, Field(ge=1, le=30 * 86400)] = 43200.0
    session_ban_seconds: Annotated[float, Field(ge=1, le=30 * 86400)] = 900.0
    session_fail_mode: Literal["bounded", "closed", "open"] = "bounded"
    idle_after: Annotated[float, Field(gt=0, le=3650)] = 7.0
    wake_idle: bool = False
    usage_poll_minutes: Annotated[float, Field(ge=10, le=1440)] = 10.0
    near_limit_percent: Annotated[int, Field(ge=1, le=100)] = 90
    grant_warning_days: Annotated[float, Field(gt=0, le=30)] = 5.0
    backoff_rate_limited: Waits = (60.0, 3600.0)
    backoff_server_error: Waits = (30.0, 600.0)
    backoff_timeout: Waits = (30.0, 600.0)
    private_upstreams: Networks = ()
    allow_loopback_upstreams: bool = False
    record_days: Annotated[int, Field(ge=1, le=3650)] = 90
    rollup_days: Annotated[int, Field(ge=1, le=3650)] = 730
    drain_grace: Annotated[float, Field(ge=0, le=60)] = 2.0
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 120.0

    public_url: str = ""
    trusted_proxies: Networks = ()
    sqlite_busy_timeout: Annotated[float, Field(gt=0, le=120)] = 2.5
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over `.env`, which wins over the file named by CAROUSEL_CONFIG."""
        # Empty means none: the tests and the demo must not meet the operator's settings.
        name = os.environ.get("CAROUSEL_ENV_FILE", ".env") or None
        dotenv = DotEnvSettingsSource(settings_cls, env_file=name)
        return init_settings, env_settings, dotenv, ConfigFile(settings_cls)

    @field_validator(
        "credential_keys",
        "trusted_proxies",
        "private_upstreams",
        "backoff_rate_limited",
        "backoff_server_error",
        "backoff_timeout",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list):
            return parts
        stripped = [part.strip() if isinstance(part, str) else part for part in parts]
        return [part for part in stripped if part != ""]

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value

    @field_validator("credential_keys")
    @classmethod
    def _are_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in value:
            try:
                size = len(base64.b64decode(key.get_secret_value(), validate=True))
            except ValueError:
                size = 0
            if size != 32:
                raise ValueError("each key must be 32 bytes in base64 (openssl rand -base64 32)")
        return value

    @field_validator("secret_key", "key_pepper")
    @classmethod
    def _is_long(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters (openssl rand -base64 48)")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _is_token(cls, value: SecretStr) -> SecretStr:
        # It stands in a header, and in other programs' files.
        if re.fullmatch(r"[!-~]{16,}|", value.get_secret_value()) is None:
            raise ValueError("must have at least 16 characters, ASCII without spaces")
        return value

    @field_validator("routing_strategies", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not (family.strip() and strategy.strip()) for family, _, strategy in pairs):
            raise ValueError("must be pairs like opus=headroom,haiku=priority")
        return {family.strip(): strategy.strip() for family, _, strategy in pairs}

    @field_validator("backoff_rate_limited", "backoff_server_error", "backoff_timeout")
    @classmethod
    def _are_waits(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 1 <= value[0] <= value[1] <= 86400:
            raise ValueError("must be the first and the longest wait in seconds, like 30,600")
        return value

    @field_validator("trusted_proxies", "private_upstreams")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @field_validator(
        "upstream_base_url",
        "oauth_authorize_url",
        "oauth_token_url",
        "oauth_redirect_uri",
        "public_url",
    )
    @classmethod
    def _is_url(cls, value: str, info: ValidationInfo) -> str:
        is_optional = info.field_name == "public_url"
        if not (is_optional and not value) and not _has_scheme(value, "http", "https"):
            raise ValueError("must be an absolute http or https address")
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _is_database(cls, value: str) -> str:
        if value and not _has_scheme(value, "postgres", "postgresql", "sqlite"):
            raise ValueError("must start with postgresql:// (leave it empty for SQLite)")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if value and not _has_scheme(value, "redis", "rediss", "unix"):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("secret_key", "credential_keys", "key_pepper")
    @classmethod
    def _is_given(
        cls, value: SecretStr | tuple[SecretStr, ...], info: ValidationInfo
    ) -> SecretStr | tuple[SecretStr, ...]:
        # A DATABASE_URL that is wrong is one that is set.
        if not _text(value) and info.data.get("database_url", "wrong"):
            raise ValueError("required when DATABASE_URL is set")
        return value

    @property
    def embedded(self) -> bool:
        """True on the embedded default: SQLite in the data folder, secrets made there."""
        return not self.database_url

    @property
    def data_dir(self) -> Path:
        """The data folder as an absolute path."""
        return self.carousel_data_dir.absolute()

    @property
    def idle_limit(self) -> timedelta:
        """How long an account may go unused before it is benched (IDLE_AFTER is in days)."""
        return timedelta(days=self.idle_after)


SECRETS = ("secret_key", "credential_keys", "key_pepper")


def load() -> Config:
    """Read and check the settings; raise ConfigError that names every wrong one."""
    try:
        config = Config()
        if not config.embedded:
            return config
        missing = [name for name in SECRETS if not _text(getattr(config, name))]
        made = {name: _made(config.data_dir, name) for name in missing}
        return Config.model_validate(config.model_dump() | made)
    except ValidationError as error:
        raise ConfigError("\n".join(["Carousel cannot start:", *_lines(error)])) from None
    except UnicodeDecodeError:
        raise ConfigError("Carousel cannot start: .env is not UTF-8") from None


def forget_settings() -> None:
    """Remove every setting from the environment, and the files from what `load` reads."""
    names = {*Config.model_fields, "carousel_config"}
    for name in [name for name in os.environ if name.lower() in names]:
        del os.environ[name]
    os.environ["CAROUSEL_ENV_FILE"] = ""


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(item["loc"][0]).upper() if item["loc"] else ""
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"  {name}: {message}" if name else f"  {message}")
    return lines


def _text(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _has_scheme(value: str, *schemes: str) -> bool:
    """Tell whether a value is an address of one of these schemes, in one piece."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:  # its text may quote a password
        return False
    is_whole = value.isprintable() and " " not in value
    is_placed = bool(parts.hostname) or not parts.scheme.startswith("http")
    return is_whole and parts.scheme in schemes and is_placed and port != 0


def _made(folder: Path, name: str) -> str:
    path = folder / f"{name}.secret"
    try:
        made = kept(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"CAROUSEL_DATA_DIR: cannot keep {path}: {reason}") from None
    if not made:
        raise ConfigError(f"{name.upper()}: {path} is empty; bring it back from a backup")
    return made
