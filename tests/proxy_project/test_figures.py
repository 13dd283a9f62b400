"""How the console writes spans of time and figures."""

from __future__ import annotations

from decimal import Decimal

import pytest

from proxy_project.templatetags.console import figure, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10.000000", "10"),
        ("0.125000", "0.125"),
        ("0", "0"),
        ("1200", "1200"),
        ("0.000001", "0.000001"),
    ],
)
def test_a_figure_has_no_exponent_and_no_zeros_behind_it(value: str, text: str) -> None:
    assert figure(Decimal(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7, "7 s"), (60, "1 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400, "1 d")],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text
