"""The settings in a file: YAML or TOML, named by CAROUSEL_CONFIG."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import PydanticBaseSettingsSource

# Whatever stands in the braces must be a variable; `${NAME:-other}` is not known here.
VARIABLE = re.compile(r"\$\{([^}]*)\}")


class ConfigError(Exception):
    """The settings do not let Carousel start; the text lists every wrong one by its name."""


class ConfigFile(PydanticBaseSettingsSource):
    """The YAML or TOML file named by CAROUSEL_CONFIG, with `${VAR}` taken from the environment."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused: the whole file is read at once by `__call__`."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the file's settings by lower-case name; raise ConfigError when it is unusable."""
        name = os.environ.get("CAROUSEL_CONFIG", "")
        if not name:
            return {}
        try:
            text = Path(name).read_text(encoding="utf-8")
            data = tomllib.loads(text) if name.endswith(".toml") else yaml.safe_load(text)
        except yaml.YAMLError as error:
            # Its own text quotes the line, which may be a secret.
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}" if mark else ""
            raise ConfigError(f"CAROUSEL_CONFIG: {name} is not YAML{where}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"CAROUSEL_CONFIG: cannot read {name}: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"CAROUSEL_CONFIG: {name} must hold names and values")
        known = self.settings_cls.model_fields
        unknown = sorted(str(key) for key in data if str(key).lower() not in known)
        if unknown:
            raise ConfigError(f"CAROUSEL_CONFIG: {name} has unknown settings: {', '.join(unknown)}")
        missing = sorted({name for value in data.values() for name in _missing(value)})
        if missing:
            raise ConfigError(f"CAROUSEL_CONFIG: not in the environment: {', '.join(missing)}")
        return {str(key).lower(): _expand(value) for key, value in data.items()}


def _missing(value: object) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _missing(item)]
    names = VARIABLE.findall(value) if isinstance(value, str) else []
    return [name for name in names if name not in os.environ]


def _expand(value: object) -> object:
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(lambda match: os.environ[match[1]], value)
