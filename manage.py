#!/usr/bin/env python
"""Django's command line for Carousel."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the management command named on the command line."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_project.settings")
    from django.core.management import execute_from_command_line

    from proxy_project import demo
    from proxy_project.config_file import ConfigError

    if sys.argv[1:2] == ["serve"] and "--demo" in sys.argv:
        demo.prepare()
    try:
        execute_from_command_line(sys.argv)
    except ConfigError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
