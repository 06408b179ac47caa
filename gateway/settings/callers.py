"""The rows that say who may call, and who may sign in to the pages."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.settings.setting import Setting

ROWS: Mapping[str, tuple[Setting, ...]] = {
    "Who may call": (
        Setting(
            *("GATEWAY_AUTH_TOKEN", "tokens", "secrets", None),
            help="The tokens that callers may use as their API key, separated by commas. Without it the "
            "gateway starts on a loopback address only, with a token that it makes and prints.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_ADMIN_TOKEN", "admin_token", "secret", None),
            help="The token of whoever manages keys (docs/keys.md); it calls no model.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_KEY_PEPPER", "key_pepper", "pepper", None),
            help="What virtual keys are hashed with, at least 32 random characters, the same for all gateways of one "
            "database; without it one is made and kept in the data folder. Keys made with another one are unknown.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_CORS_ORIGINS", "cors_origins", "origins", None),
            help="The web origins whose pages may call, separated by commas, or `*`; none without it.",
        ),
    ),
    "Callers with a JWT": (
        Setting(
            *("GATEWAY_OIDC_ISSUER", "oidc_issuer", "issuer", None),
            help="The issuer whose JWTs are taken as keys (docs/keys.md), and where people sign in to the pages "
            "(docs/dashboard.md), to the letter as `iss` has it.",
        ),
        Setting(
            *("GATEWAY_OIDC_AUDIENCE", "oidc_audience", "names", None),
            help="What the `aud` of a JWT must have one of, separated by commas; without it none is taken as a key.",
        ),
        Setting(
            *("GATEWAY_OIDC_JWKS_URL", "oidc_jwks_url", "keyset", None),
            help="The address of the issuer's public keys; without it the issuer's "
            "`/.well-known/openid-configuration` names it.",
        ),
        Setting(
            *("GATEWAY_OIDC_ALGORITHMS", "oidc_algorithms", "algorithms", "RS256,ES256"),
            help="The algorithms that are taken, separated by commas, of RS256 to RS512, PS256 to PS512, ES256 to "
            "ES512 and EdDSA.",
        ),
        Setting(
            *("GATEWAY_OIDC_CALLER_CLAIM", "oidc_caller_claim", "text", "sub"),
            help="The claim that says who calls; here and below dots lead into claims within claims.",
        ),
        Setting(
            *("GATEWAY_OIDC_PROJECT_CLAIM", "oidc_project_claim", "text", None),
            help="The claim that names a project, whose callers share stored responses.",
        ),
        Setting(
            *("GATEWAY_OIDC_SCOPES_CLAIM", "oidc_scopes_claim", "text", "scope"),
            help="The claim that lists what a caller may do: a list, or a text with blanks between.",
        ),
        Setting(
            *("GATEWAY_OIDC_CALL_SCOPE", "oidc_call_scope", "text", None),
            help="What must stand in that list for calls; without it every token of the issuer will do.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_SCOPE", "oidc_admin_scope", "text", None),
            help="What must stand in that list for managing keys; without it no token will do.",
        ),
        Setting(
            *("GATEWAY_OIDC_MODELS_CLAIM", "oidc_models_claim", "text", None),
            help="The claim that lists the models that a caller may call, `*` for any text; without it all.",
        ),
    ),
    "People who sign in with OpenID Connect": (
        Setting(
            *("GATEWAY_OIDC_CLIENT_ID", "oidc_client_id", "visible", None),
            help="What the gateway is called at GATEWAY_OIDC_ISSUER; with it people sign in to the pages there "
            "(docs/dashboard.md).",
        ),
        Setting(
            *("GATEWAY_OIDC_CLIENT_SECRET", "oidc_client_secret", "client_secret", None),
            help="The secret that goes with it.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_OIDC_SCOPE", "oidc_scope", "scope", "openid email"),
            help="What is asked for there, with blanks between; `openid` must be among it.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_EMAILS", "oidc_admin_emails", "emails", None),
            help="Who manages the gateway: verified e-mail addresses, or `@example.com` for all of a domain, separated "
            "by commas.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_CLAIM", "oidc_admin_claim", "text", None),
            help="A claim of the ID token that says the same, such as `groups`; dots lead into claims within claims.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_VALUES", "oidc_admin_values", "names", None),
            help="What that claim must have one of, separated by commas; needed with it.",
        ),
    ),
}
