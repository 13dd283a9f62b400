"""What an operator can be told when something with an account does not work."""

from __future__ import annotations


class AccountError(Exception):
    """The base of all errors that a form or a command shows as they are.

    The text is plain English for the operator and never holds a secret.
    """


class MoveRefused(AccountError):
    """The account cannot do this in its present state."""


class TryLater(AccountError):
    """Nothing is wrong with the account, but it cannot be done now."""


class BadFields(AccountError):
    """Some of what was given cannot be; `errors` says it per field."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(" ".join(f"{name}: {text}" for name, text in errors.items()))
        self.errors = errors
