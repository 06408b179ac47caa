"""Who may call, and who may sign in to the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.assembly.stores import LOOKUP_PATIENCE_S, database, pepper_of
from gateway.auth import Authenticator, Verifier
from gateway.auth.keys import VirtualKeys
from gateway.auth.tokens import StaticTokens
from gateway.core.people import AdminRule
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.auth.issuer import IssuerKeys
    from gateway.auth.sign_in import SignIn
    from gateway.storage.database import Database


def authenticator(settings: Settings, issued: IssuerKeys | None) -> Authenticator:
    """Say who may call: static tokens, then virtual keys, then JWTs; each knows by its shape what is not its own."""
    from gateway.storage.lookup import KeyLookup  # noqa: PLC0415  # SQLAlchemy, cryptography: slow to import

    lookup = KeyLookup(database(settings, LOOKUP_PATIENCE_S))
    verifiers: list[Verifier] = [StaticTokens(settings.tokens), VirtualKeys(lookup, pepper_of(settings))]
    if settings.admin_token is not None:
        verifiers.insert(0, StaticTokens([settings.admin_token], admin=True))
    if settings.oidc_issuer is not None and issued is not None and settings.oidc_audience:
        from gateway.auth.oidc import Claims, JsonWebTokens  # noqa: PLC0415  # SQLAlchemy, cryptography: slow to import

        claims = Claims(
            caller=settings.oidc_caller_claim,
            project=settings.oidc_project_claim,
            scopes=settings.oidc_scopes_claim,
            models=settings.oidc_models_claim,
            call_scope=settings.oidc_call_scope,
            admin_scope=settings.oidc_admin_scope,
        )
        issuer, algorithms = settings.oidc_issuer, settings.oidc_algorithms
        verifiers.append(JsonWebTokens(issuer, settings.oidc_audience, algorithms, issued, claims))
    return Authenticator(verifiers)


def issuer_keys(settings: Settings) -> IssuerKeys | None:
    """The public keys of the issuer, which nobody has asked for yet; None where the settings name no issuer."""
    if settings.oidc_issuer is None:
        return None
    from gateway.auth.issuer import IssuerKeys  # noqa: PLC0415  # cryptography: only where it is needed

    return IssuerKeys(settings.oidc_issuer, settings.oidc_jwks_url, settings.oidc_algorithms)


def sign_in(settings: Settings, keys: IssuerKeys | None, shared: Database) -> SignIn | None:
    """The way in to the pages for people of the issuer; None where the settings name no client of it."""
    issuer, id, secret = settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret
    if issuer is None or keys is None or id is None or secret is None or settings.ui != "on":
        return None
    from gateway.auth.code_flow import CodeFlow  # noqa: PLC0415  # SQLAlchemy, cryptography: slow to import
    from gateway.auth.sign_in import SignIn  # noqa: PLC0415  # SQLAlchemy, cryptography: slow to import
    from gateway.storage.owners import Owners  # noqa: PLC0415  # SQLAlchemy, cryptography: slow to import

    claim, values = settings.oidc_admin_claim, frozenset(settings.oidc_admin_values)
    rule = AdminRule(frozenset(settings.oidc_admin_emails), claim, values)
    flow = CodeFlow(issuer, id, secret, settings.oidc_scope, settings.oidc_algorithms, keys)
    return SignIn(flow, rule, Owners(shared))
