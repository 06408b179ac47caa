"""Which key goes to which address: a key belongs to the address that it was given with."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.core.outline import Node
from gateway.core.providers import SAME_WIRE, Provider
from gateway.core.routing import Reach
from gateway.routes.reading import Reading
from gateway.secret import Secret

#: Variables that LiteLLM prefers to the key that it is given; what they say would go to the deployment's address.
_STRONGER = {
    **dict.fromkeys(("azure", "azure_ai", "azure_text"), ("AZURE_AD_TOKEN", "AZURE_PASSWORD")),
    **dict.fromkeys(("databricks", "databricks_agent"), ("DATABRICKS_CLIENT_SECRET",)),
}
#: Where an identity of Azure's may go: to Azure.
_AZURE_HOSTS = (".azure.com", ".azure.us", ".azure.cn")


def reach_of(
    reading: Reading,
    provider: Provider,
    base: str | None,
    key: Secret | None,
    version: str | None,
    node: Node,
    path: str,
) -> Reach:
    """Say how a deployment is reached: what the file does not say, the provider's own variables do.

    Args:
        reading: the file.
        provider: whose deployment it is.
        base: its address, None where the file says none.
        key: its key, likewise.
        version: of the provider's API, likewise.
        node: what faults and warnings are about.
        path: where that stands.
    """
    settings = reading.settings
    known = settings.credential(provider.name)
    version = version or known.api_version
    first = settings.variables.first
    identity, account = first(provider.any_of) is not None, first(provider.account) is not None
    if base is None or base == known.api_base:
        address = first(provider.bases)
        if key is not None and address is not None and base is None and provider.needs == "key":
            reading.warn(node, path, f"the api_key that is given here goes to the address of {address[0]}")
        missing = provider.missing(
            key=(key or known.api_key) is not None,
            address=address is not None or base is not None,
            identity=identity,
            account=account,
        )
        return Reach(key or known.api_key, base or known.api_base, version, _told(reading, missing, node, path))
    # from here on nothing that belongs to another address may go to this one
    host = urlsplit(base).hostname or ""
    at_azure = provider.name in ("azure", "azure_ai", "azure_text") and host.endswith(_AZURE_HOSTS)
    if provider.needs == "cloud":
        what = f"the cloud's identity would go there; if that is meant, set {provider.bases[0]}"
        reading.fault(node, f"{path}.api_base", f"not supported by this release: {what}")
    elif not at_azure and (stronger := first(_STRONGER.get(provider.name, ()))) is not None:
        what = f"LiteLLM would send what {stronger[0]} holds to this address; unset it, or set {provider.bases[0]}"
        reading.fault(node, f"{path}.api_base", what)
    if key is None and known.api_key is not None and not (at_azure and identity):
        owner = first(provider.keys)
        what = f"; if {owner[0]} is meant, write api_key: os.environ/{owner[0]}" if owner else ""
        reading.warn(node, path, f"no key is sent to this api_base{what}")
    # servers that speak OpenAI's wire often need no key; LiteLLM refuses to call the others without
    keyless = provider.name in SAME_WIRE or "key" not in provider.needs or (at_azure and identity)
    missing = None if key is not None or keyless else "set api_key beside the api_base of this deployment"
    return Reach(key, base, version, _told(reading, missing, node, path))


def _told(reading: Reading, missing: str | None, node: Node, path: str) -> str | None:
    if missing is not None:
        reading.warn(node, path, f"this deployment cannot be called: {missing}")
    return missing
