"""Which credentials the gateway knows, so that they are taken out of all that is recorded."""

from __future__ import annotations

from gateway.core.redaction import Redactor
from gateway.offload import rest
from gateway.routes import Table
from gateway.settings import Settings


def redactor_of(settings: Settings, table: Table) -> Redactor:
    """What takes the gateway's own credentials (`secrets_of`) out of a text."""
    return Redactor(secrets_of(settings, table), rest)


def secrets_of(settings: Settings, table: Table) -> list[str]:
    """The gateway's own credentials: those of the settings and of the routes file."""
    known = [
        *settings.tokens,
        settings.admin_token,
        settings.key_pepper,
        settings.webhook_secret,
        settings.oidc_client_secret,
        settings.braintrust_api_key,
        *table.secrets,
    ]
    known += [*settings.store_passwords, *settings.otlp_headers.values()]
    known += [credential.api_key for credential in settings.credentials.values()]
    return [secret.reveal() for secret in known if secret is not None]
