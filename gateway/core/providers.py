"""Which providers there are, what each needs to be reached, and which of them speak OpenAI's own wire.

The names are LiteLLM's. A test compares them with the installed release: a provider that is new there has to
be given its row here, or its reason for not being served. The variables are `<NAME>_API_KEY` and
`<NAME>_API_BASE` (`-` becomes `_`), and after them the names that LiteLLM or the vendor's own tools read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Needs = Literal["key", "address", "cloud", "key and address"]


@dataclass(frozen=True)
class Provider:
    """One provider.

    Attributes:
        name: as it stands before the slash of a model's name.
        keys: variables of the credential; the first that is set wins.
        bases: variables of the address; the first that is set wins.
        needs: `key`; `address` (a server of the operator's own, its key optional); `key and address`; `cloud`
            (the cloud's own variables say who calls, LiteLLM reads them from the process environment).
        any_of: one of these stands in for a key; `cloud` providers have nothing else.
        account: one of these stands in for an address.
        reads: what LiteLLM reads besides, by itself; nothing here asks for it.
        versions: variables of the API's version.
        address: the public address, only where LiteLLM would use a wrong one (it falls back to OpenAI's).
        stem: how the variables begin that an operator is asked for.
    """

    name: str
    keys: tuple[str, ...]
    bases: tuple[str, ...]
    needs: Needs = "key"
    any_of: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    address: str | None = None
    stem: str = ""

    def missing(self, *, key: bool, address: bool, identity: bool = False, account: bool = False) -> str | None:
        """Say which variable has to be set before this provider can be called, or None.

        Args:
            key: a variable of `keys` is set.
            address: a variable of `bases` is set.
            identity: a variable of `any_of` is set.
            account: a variable of `account` is set.
        """
        if self.needs == "cloud":
            return None if identity or key else f"set one of {', '.join(self.keys + self.any_of)}"
        wanted = []
        if "key" in self.needs and not (key or identity):
            wanted.append(f"{self.stem}_API_KEY")
        if "address" in self.needs and not (address or account):
            wanted.append(" or ".join((f"{self.stem}_API_BASE", *self.account)))
        return f"set {' and '.join(wanted)}" if wanted else None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _row(
    name: str,
    keys: str = "",
    bases: str = "",
    *,
    like: str = "",
    needs: Needs = "key",
    any_of: str = "",
    account: str = "",
    reads: str = "",
    versions: str = "",
    address: str | None = None,
) -> Provider:
    stems = (name.upper().replace("-", "_"), *_names(like))
    named = _names(bases)
    urls = tuple(base for base in named if base.endswith("_BASE_URL"))  # the name that the vendors' SDKs read
    own_keys = () if needs == "cloud" else tuple(f"{stem}_API_KEY" for stem in stems)
    return Provider(
        name=name,
        keys=(*own_keys, *_names(keys)),
        bases=(*urls, *(f"{stem}_API_BASE" for stem in stems), *(base for base in named if base not in urls)),
        needs=needs,
        any_of=_names(any_of),
        account=_names(account),
        reads=_names(reads),
        versions=_names(versions),
        address=address,
        stem=stems[-1],
    )


_BY_RULE = _names("""
    abliteration aiand aihubmix amazon_nova assemblyai baseten bigmodel bytez cerebras charity_engine chutes
    clarifai clf_ai_gateway codestral cognition compactifai coralbricks cortecs crusoe darkbloom dashscope
    deepinfra deepseek edenai empiriolabs empower galadriel github gmi groq helicone hostinger_router
    hyperbolic inception inferenceapis kyma libertai llamagate maritalk meta minimax modelscope moonshot
    morph nadir nebius neosantara nlp_cloud novita nscale openinfer ovhcloud parasail pinstripes poe prism
    publicai refuseless reka sail sambanova sarvam streamlake synthetic tencent v0 wandb xai xiaomi_mimo zai
    zerogpu
""")

# Without an address LiteLLM would go to a local port, or to OpenAI: a model's name alone must not lead there.
_BY_ADDRESS = _names("""
    custom_openai docker_model_runner hosted_vllm langflow langgraph lemonade litellm_proxy llamafile
    lm_studio ollama oobabooga triton xinference
""")

# AWS_REGION_NAME is LiteLLM's own name: who sets it means it, also where an instance's role says who calls.
_AWS = """
    AWS_ACCESS_KEY_ID AWS_PROFILE AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_REGION_NAME
"""
_GOOGLE = """
    GOOGLE_APPLICATION_CREDENTIALS VERTEXAI_PROJECT VERTEX_PROJECT VERTEXAI_CREDENTIALS VERTEX_CREDENTIALS
    GOOGLE_CLOUD_PROJECT
"""
_ENTRA = "AZURE_CLIENT_SECRET AZURE_AD_TOKEN AZURE_FEDERATED_TOKEN_FILE"
_AZURE = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT")
_WATSONX = ("WATSONX_APIKEY WX_API_KEY", "WATSONX_URL WX_URL WML_URL")
_WATSONX_READS = "WATSONX_PROJECT_ID WX_PROJECT_ID WATSONX_SPACE_ID WX_SPACE_ID WATSONX_DEPLOYMENT_SPACE_ID"

_ROWS = (
    *(_row(name) for name in _BY_RULE),
    *(_row(name, needs="address") for name in _BY_ADDRESS),
    # LiteLLM sends AI21 models that its own map lacks, with their key, to OpenAI's address.
    _row("ai21", address="https://api.ai21.com/studio/v1"),
    _row("ai21_chat", like="AI21"),
    _row("aiml", "AIMLAPI_KEY"),
    _row("anthropic", bases="ANTHROPIC_BASE_URL"),
    _row("anthropic_text", bases="ANTHROPIC_BASE_URL", like="ANTHROPIC"),
    _row("apertis", "STIMA_API_KEY"),
    _row(
        "azure",
        *_AZURE,
        needs="key and address",
        any_of=_ENTRA,
        versions="AZURE_API_VERSION",
    ),
    _row("azure_ai", needs="key and address", any_of=_ENTRA, versions="AZURE_AI_API_VERSION AZURE_API_VERSION"),
    _row(
        "azure_text",
        *_AZURE,
        like="AZURE",
        needs="key and address",
        any_of=_ENTRA,
        versions="AZURE_API_VERSION",
    ),
    _row("bedrock", needs="cloud", any_of=f"{_AWS} AWS_BEARER_TOKEN_BEDROCK"),
    _row(
        "bedrock_mantle",
        "BEDROCK_MANTLE_API_KEY",
        needs="cloud",
        any_of=f"{_AWS} AWS_BEARER_TOKEN_BEDROCK",
        reads="BEDROCK_MANTLE_REGION",
    ),
    _row("cloudflare", needs="key and address", account="CLOUDFLARE_ACCOUNT_ID"),
    _row("cohere", "CO_API_KEY"),
    _row("cohere_chat", "CO_API_KEY", like="COHERE"),
    _row("cometapi", "COMETAPI_KEY", "COMETAPI_BASE_URL"),
    _row(
        "databricks",
        "DATABRICKS_TOKEN",
        needs="key and address",
        any_of="DATABRICKS_CLIENT_SECRET",
        reads="DATABRICKS_CLIENT_ID",
    ),
    _row("databricks_agent", "DATABRICKS_TOKEN", like="DATABRICKS", needs="key and address"),
    _row("datarobot", "DATAROBOT_API_TOKEN", "DATAROBOT_ENDPOINT"),
    _row("fal_ai", "FAL_KEY"),
    _row("featherless_ai", "FEATHERLESS_API_KEY", "FEATHERLESS_API_BASE"),
    _row(
        "fireworks_ai",
        "FIREWORKS_API_KEY FIREWORKSAI_API_KEY FIREWORKS_AI_TOKEN",
        "FIREWORKS_API_BASE",
        reads="FIREWORKS_ACCOUNT_ID",
    ),
    _row("friendliai", "FRIENDLI_TOKEN", "FRIENDLI_API_BASE"),
    _row("gdc", needs="key and address"),
    _row("gemini", "GOOGLE_API_KEY"),
    _row(
        "gigachat",
        "GIGACHAT_CREDENTIALS",
        reads="GIGACHAT_SCOPE GIGACHAT_AUTH_URL",
    ),
    _row("gradient_ai", bases="GRADIENT_AI_AGENT_ENDPOINT"),
    _row("heroku", needs="key and address"),
    _row("huggingface", "HF_TOKEN", "HF_API_BASE"),
    _row("lambda_ai", "LAMBDA_API_KEY", "LAMBDA_API_BASE"),
    _row("meta_llama", "LLAMA_API_KEY", "LLAMA_API_BASE"),
    _row("mistral", "MISTRAL_AZURE_API_KEY", "MISTRAL_AZURE_API_BASE"),
    _row("nano-gpt", "NANOGPT_API_KEY"),
    _row("nvidia_nim", "NVIDIA_API_KEY"),
    _row(
        "oci",
        needs="cloud",
        any_of="OCI_KEY_FILE OCI_KEY",
        reads="OCI_USER OCI_FINGERPRINT OCI_TENANCY OCI_COMPARTMENT_ID OCI_REGION",
    ),
    _row("ollama_chat", like="OLLAMA", needs="address"),
    _row("openai", bases="OPENAI_BASE_URL", reads="OPENAI_ORGANIZATION OPENAI_PROJECT"),
    _row("opencode_go", "OPENCODE_API_KEY"),
    _row("openrouter", "OR_API_KEY"),
    _row("perplexity", "PERPLEXITYAI_API_KEY"),
    _row("predibase", reads="PREDIBASE_TENANT_ID"),
    _row("qwen_ai_platform", "DASHSCOPE_API_KEY"),
    _row("qwencloud", "DASHSCOPE_API_KEY"),
    _row("ragflow", needs="key and address"),
    _row("replicate", "REPLICATE_API_TOKEN"),
    _row("sagemaker", needs="cloud", any_of=_AWS),
    _row("sagemaker_chat", needs="cloud", any_of=_AWS),
    _row("sagemaker_nova", needs="cloud", any_of=_AWS),
    _row(
        "sap",
        needs="cloud",
        any_of="AICORE_SERVICE_KEY AICORE_CLIENT_ID AICORE_CONFIG AICORE_PROFILE AICORE_HOME",
    ),
    _row("scaleway", "SCW_SECRET_KEY"),
    _row("scx-ai", "SCX_API_KEY", "SCX_API_BASE"),
    _row("snowflake", "SNOWFLAKE_JWT", needs="key and address", account="SNOWFLAKE_ACCOUNT_ID"),
    _row("tensormesh", "TENSORMESH_INFERENCE_API_KEY", "TENSORMESH_SERVERLESS_BASE_URL"),
    _row("text-completion-codestral", "CODESTRAL_API_KEY"),
    _row("text-completion-inception", like="INCEPTION"),
    _row("text-completion-openai", bases="OPENAI_BASE_URL", like="OPENAI"),
    _row("together_ai", "TOGETHER_API_KEY TOGETHERAI_API_KEY TOGETHER_AI_TOKEN"),
    _row("veniceai", "VENICE_AI_API_KEY"),
    _row("vercel_ai_gateway", "AI_GATEWAY_API_KEY VERCEL_OIDC_TOKEN"),
    _row("vertex_ai", needs="cloud", any_of=_GOOGLE, reads="VERTEXAI_LOCATION VERTEX_LOCATION"),
    _row("vertex_ai_beta", needs="cloud", any_of=_GOOGLE, reads="VERTEXAI_LOCATION VERTEX_LOCATION"),
    _row("volcengine", "ARK_API_KEY", "ARK_API_BASE"),
    _row("watsonx", *_WATSONX, needs="key and address", reads=_WATSONX_READS),
    _row("watsonx_text", *_WATSONX, like="WATSONX", needs="key and address", reads=_WATSONX_READS),
)

#: Every provider that can be called, by name.
PROVIDERS: Mapping[str, Provider] = MappingProxyType({row.name: row for row in sorted(_ROWS, key=lambda row: row.name)})

_NO_CHAT = "LiteLLM has no chat completions for it"
_LOGIN = "it signs in as a person, in a browser, and keeps the tokens in files"
_AGENT = "it calls an agent, which is no model"
_PROMPTS = "it names a store of prompts, not a provider"

#: Names that LiteLLM knows and that no request reaches, with the reason.
NOT_SERVED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            _names("""
                aws_polly aws_textract azure_speech bespoke black_forest_labs cursor deepgram elevenlabs
                eu_jev infinity jina_ai laya manus milvus mongodb nace nvidia_riva openai_like opensearch
                pg_vector recraft reducto runwayml s3_vectors scaledown soniox stability strands_decider
                topaz transcribe typesafe valkey voyage
            """),
            _NO_CHAT,
        ),
        **dict.fromkeys(_names("chatgpt github_copilot microsoft_365_copilot"), _LOGIN),
        **dict.fromkeys(_names("a2a a2a_agent litellm_agent"), _AGENT),
        **dict.fromkeys(_names("dotprompt humanloop langfuse"), _PROMPTS),
        "aiohttp_openai": "its synchronous call sends a form where JSON is due; use custom_openai",
        "auto_router": "it chooses a model by LiteLLM's router, which is not run here",
        "custom": "it speaks a format of LiteLLM's own; use custom_openai",
        "petals": "it runs the model inside this process",
        "vllm": "it runs the model inside this process; use hosted_vllm",
    }
)

# Measured: LiteLLM adds and renames nothing here, it only drops fields that its map does not grant the model.
#: Providers to which the caller's own chat body may go as it came.
SAME_WIRE: frozenset[str] = frozenset(
    _names("""
        openai hosted_vllm llamafile lm_studio litellm_proxy abliteration aiand assemblyai clf_ai_gateway
        cognition coralbricks cortecs helicone hostinger_router inferenceapis kyma meta openinfer parasail
        prism refuseless reka scaleway vercel_ai_gateway zerogpu
    """)
)

#: Another name of openai, with the same key: for its text completions, which never need LiteLLM.
OPENAI_FOR_TEXT = "text-completion-openai"

# Not among them, though their path ends alike, for LiteLLM mends what they send: mistral, codestral,
# databricks and azure_ai (`content` may be a list of parts), fireworks_ai (tool calls in the text), snowflake
# (some models speak Anthropic's wire), xai (an empty finish_reason; reasoning outside completion_tokens).
#: Providers that answer `…/chat/completions` on OpenAI's own wire, so that their bytes can be passed on.
OPENAI_WIRE: frozenset[str] = SAME_WIRE | frozenset(
    _names("""
        ai21 ai21_chat aihubmix aiml amazon_nova apertis azure baseten bedrock_mantle bigmodel cerebras
        charity_engine chutes clarifai cloudflare cometapi compactifai crusoe custom_openai darkbloom
        dashscope deepinfra deepseek docker_model_runner edenai empiriolabs empower featherless_ai
        friendliai galadriel github gmi gradient_ai groq heroku huggingface hyperbolic inception lambda_ai
        lemonade libertai llamagate maritalk meta_llama minimax modelscope moonshot morph nadir nano-gpt
        nebius neosantara novita nscale nvidia_nim oobabooga opencode_go openrouter ovhcloud perplexity
        pinstripes poe publicai qwen_ai_platform qwencloud ragflow sail sambanova sarvam scx-ai streamlake
        synthetic tencent tensormesh together_ai v0 veniceai volcengine wandb xiaomi_mimo xinference zai
    """)
)

#: A tool that LiteLLM invents where a model has no `response_format` (azure, groq) and unwraps in the answer.
#: When the body that was sent has it, the answer's bytes are not what the caller asked for.
STAND_IN_TOOL = "json_tool_call"

#: Variables of credentials that LiteLLM would pick up by itself, of which nothing here makes use.
UNUSED_SECRETS: frozenset[str] = frozenset(
    {"ANTHROPIC_AUTH_TOKEN", *(f"{name.upper().replace('-', '_')}_API_KEY" for name in NOT_SERVED)}
)
