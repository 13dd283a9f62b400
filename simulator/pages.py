"""The three HTML pages a person sees while linking an account."""

from __future__ import annotations

from html import escape

from .state import Account

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; background: #f4f1ea; color: #29261f; margin: 0; }
main { max-width: 34rem; margin: 10vh auto; padding: 2rem; background: #fff; border-radius: 12px;
  box-shadow: 0 1px 8px #0002; }
li { display: flex; justify-content: space-between; align-items: center; gap: 1rem;
  padding: .75rem 0; border-top: 1px solid #eee; }
ul { list-style: none; padding: 0; } small { color: #6b665a; display: block; }
button { font: inherit; padding: .5rem 1rem; border: 0; border-radius: 8px; background: #b4532f;
  color: #fff; cursor: pointer; }
code { display: block; padding: 1rem; background: #f4f1ea; border-radius: 8px;
  overflow-wrap: anywhere; user-select: all; }
"""


def choice(params: dict[str, str], accounts: list[Account]) -> str:
    """Return the page that asks which person authorizes."""
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in params.items()
    )
    rows = "".join(_row(account, hidden) for account in accounts)
    people = f"<ul>{rows}</ul>" if accounts else "<p>There are no accounts yet.</p>"
    intro = "<p>A stand-in for the real login. Nobody's real account is used.</p>"
    return _page("Authorize", f"{intro}{people}")


def code(pasted: str, email: str) -> str:
    """Return the page that shows the code to copy."""
    intro = f"<p>Authorized as <b>{escape(email)}</b>. Paste this code where it was asked for.</p>"
    return _page("Authentication code", f'{intro}<code id="code">{escape(pasted)}</code>')


def refusal(problem: str) -> str:
    """Return the page that names what is wrong with an authorize request."""
    return _page("Invalid OAuth request", f'<p id="problem">{escape(problem)}</p>')


def _row(account: Account, hidden: str) -> str:
    email = escape(account.email)
    plan = escape(account.organization_type)
    field = f'<input type="hidden" name="account" value="{email}">'
    button = f'<button type="submit">Authorize as {email}</button>'
    form = f'<form method="post" action="/oauth/authorize">{hidden}{field}{button}</form>'
    return f"<li><small>{plan}</small>{form}</li>"


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    html = f"<main><h1>{title}</h1>{body}</main>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{html}</body></html>'
