"""What real providers report, and what it costs by their price lists.

Each row: whose; the wire; the usage (and what stands beside it in the answer); prices in USD for 1,000,000 tokens by
the keys of a row, and under `each` those that are no tokens' in USD for one; the sum by hand, in micro-dollars, as
tokens times USD for a million are; the page that has the shape; the page that has the price. Prices are those that
LiteLLM's map had in November 2026, and stay so here, whatever becomes of the map and of the pages. Gemini, Bedrock and
Cohere are read in the shape that LiteLLM gives to the counts of the pages named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]

OPENAI_CHAT = "https://platform.openai.com/docs/api-reference/chat/object"
OPENAI_RESPONSES = "https://platform.openai.com/docs/api-reference/responses/object"
OPENAI_PRICES = "https://platform.openai.com/docs/pricing"
ANTHROPIC = "https://docs.anthropic.com/en/api/messages"
ANTHROPIC_CACHE = "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching"
ANTHROPIC_PRICES = "https://docs.anthropic.com/en/docs/about-claude/pricing"
GEMINI = "https://ai.google.dev/api/generate-content#UsageMetadata"
GEMINI_PRICES = "https://ai.google.dev/gemini-api/docs/pricing"
DEEPSEEK = "https://api-docs.deepseek.com/api/create-chat-completion"
DEEPSEEK_PRICES = "https://api-docs.deepseek.com/quick_start/pricing"
XAI = "https://docs.x.ai/docs/guides/reasoning"
XAI_PRICES = "https://docs.x.ai/docs/models"
MISTRAL = "https://docs.mistral.ai/api/"
MISTRAL_PRICES = "https://mistral.ai/pricing"
GROQ = "https://console.groq.com/docs/api-reference"
GROQ_PRICES = "https://groq.com/pricing"
PERPLEXITY = "https://docs.perplexity.ai/api-reference/chat-completions-post"
PERPLEXITY_PRICES = "https://docs.perplexity.ai/getting-started/pricing"
BEDROCK = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html"
BEDROCK_PRICES = "https://aws.amazon.com/bedrock/pricing/"
OPENROUTER = "https://openrouter.ai/docs/use-cases/usage-accounting"
QWEN = "https://www.alibabacloud.com/help/en/model-studio/models"
COHERE_PRICES = "https://cohere.com/pricing"


@dataclass(frozen=True)
class Example:
    """One answer's usage and its price."""

    name: str
    wire: str
    usage: JSON
    prices: dict[str, float]
    sum: str
    shape: str
    source: str
    each: JSON = field(default_factory=dict)
    tier: str | None = None
    output: tuple[str, ...] = ()


IN, OUT, HIT = "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"
WRITE, HOUR = "cache_creation_input_token_cost", "cache_creation_input_token_cost_above_1hr"
THINK, HEARD, SPOKEN = "output_cost_per_reasoning_token", "input_cost_per_audio_token", "output_cost_per_audio_token"


def above(thousands: int, **prices: float) -> dict[str, float]:
    """Prices of prompts of more than so many thousand tokens."""
    return {f"{key}_above_{thousands}k_tokens": usd for key, usd in prices.items()}


def searches(low: float, medium: float | None = None, high: float | None = None) -> JSON:
    """Prices of a search by how much it looks at; one for all where only one is given."""
    sizes = {"low": low, "medium": medium or low, "high": high or low}
    return {"search_context_cost_per_query": {f"search_context_size_{size}": usd for size, usd in sizes.items()}}


def chat(prompt: int, completion: int, asked: JSON | None = None, said: JSON | None = None, **more: Any) -> JSON:
    """OpenAI's object, with the total that it has."""
    usage: JSON = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    usage |= {"prompt_tokens_details": asked} if asked is not None else {}
    usage |= {"completion_tokens_details": said} if said is not None else {}
    return {**usage, **more}


def response(prompt: int, completion: int, asked: JSON, said: JSON) -> JSON:
    """The object of OpenAI's Responses."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": asked,
        "output_tokens": completion,
        "output_tokens_details": said,
        "total_tokens": prompt + completion,
    }


def message(plain: int, completion: int, read: int = 0, written: int = 0, **more: Any) -> JSON:
    """The object of Anthropic's Messages."""
    return {
        "input_tokens": plain,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": completion,
        "service_tier": "standard",
        **more,
    }


GPT_4O = {IN: 2.5, HIT: 1.25, OUT: 10, f"{IN}_priority": 4.25, f"{HIT}_priority": 2.125, f"{OUT}_priority": 17}
GPT_4O_MINI = {IN: 0.15, HIT: 0.075, OUT: 0.6}
O4_MINI = {IN: 1.1, HIT: 0.275, OUT: 4.4, f"{IN}_flex": 0.55, f"{HIT}_flex": 0.138, f"{OUT}_flex": 2.2}
GPT_54 = {IN: 2.5, HIT: 0.25, OUT: 15, f"{IN}_priority": 5, f"{OUT}_priority": 30}
GPT_54 |= above(272, **{IN: 5, HIT: 0.5, OUT: 22.5})
GPT_5 = {IN: 1.25, HIT: 0.125, OUT: 10}
GPT_AUDIO = {IN: 2.5, OUT: 10, HEARD: 32, SPOKEN: 64}
SONNET = {IN: 3, WRITE: 3.75, HOUR: 6, HIT: 0.3, OUT: 15, f"{IN}_batches": 1.5, f"{OUT}_batches": 7.5}
OPUS = {IN: 5, WRITE: 6.25, HOUR: 10, HIT: 0.5, OUT: 25}
NONE_REASONED = {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0}
SONNET_BEDROCK = {IN: 3.3, WRITE: 4.125, HIT: 0.33, OUT: 16.5}
SONNET_BEDROCK |= above(200, **{IN: 6.6, WRITE: 8.25, HIT: 0.66, OUT: 24.75})
FLASH = {IN: 0.3, HIT: 0.03, HEARD: 1, OUT: 2.5, THINK: 2.5}
GEMINI_PRO = {IN: 1.25, HIT: 0.125, OUT: 10, **above(200, **{IN: 2.5, HIT: 0.25, OUT: 15})}
DEEPSEEK_CHAT = {IN: 0.28, HIT: 0.028, OUT: 0.42}
GROK = {IN: 1.25, HIT: 0.2, OUT: 2.5, **above(200, **{IN: 2.5, HIT: 0.4, OUT: 5})}
QWEN_FLASH = [
    {IN: 5e-8, OUT: 4e-7, "range": [0, 256_000]},
    {IN: 2.5e-7, OUT: 2e-6, "range": [256_000, 1_000_000]},
]

EXAMPLES = (
    Example("openai plain", "chat", chat(19, 10), GPT_4O, "19*2.5 + 10*10", OPENAI_CHAT, OPENAI_PRICES),
    Example(
        *("openai cached", "chat", chat(2006, 300, {"cached_tokens": 1920, "audio_tokens": 0}, NONE_REASONED), GPT_4O),
        *("86*2.5 + 1920*1.25 + 300*10", OPENAI_CHAT, OPENAI_PRICES),
    ),
    Example(
        *("openai priority", "chat", chat(1000, 100, {"cached_tokens": 400}), GPT_4O),
        *("600*4.25 + 400*2.125 + 100*17", OPENAI_CHAT, OPENAI_PRICES),
        tier="priority",
    ),
    Example(
        *("openai default tier", "chat", chat(1000, 100), GPT_4O, "1000*2.5 + 100*10", OPENAI_CHAT, OPENAI_PRICES),
        tier="default",
    ),
    Example(
        *("openai flex", "chat", chat(1200, 900, {"cached_tokens": 1024}, {"reasoning_tokens": 640}), O4_MINI),
        *("176*0.55 + 1024*0.138 + 260*2.2 + 640*2.2", OPENAI_CHAT, OPENAI_PRICES),
        tier="flex",
    ),
    Example(
        *("openai reasoning", "chat", chat(75, 1186, {"cached_tokens": 0}, {"reasoning_tokens": 1024}), O4_MINI),
        *("75*1.1 + 162*4.4 + 1024*4.4", OPENAI_CHAT, OPENAI_PRICES),
    ),
    Example(
        *("openai audio", "chat"),
        chat(
            *(17 + 220, 40 + 128),
            {"cached_tokens": 0, "text_tokens": 17, "audio_tokens": 220, "image_tokens": 0},
            {"reasoning_tokens": 0, "text_tokens": 40, "audio_tokens": 128},
        ),
        *(GPT_AUDIO, "17*2.5 + 220*32 + 40*10 + 128*64"),
        *("https://platform.openai.com/docs/guides/audio", OPENAI_PRICES),
    ),
    Example(
        *("openai long prompt", "chat", chat(300_000, 1000, {"cached_tokens": 100_000}), GPT_54),
        *("200000*5 + 100000*0.5 + 1000*22.5", OPENAI_CHAT, OPENAI_PRICES),
    ),
    Example(
        *("openai at the edge", "chat", chat(272_000, 1000), GPT_54, "272000*2.5 + 1000*15"),
        *(OPENAI_CHAT, OPENAI_PRICES),
    ),
    Example(
        *("openai legacy completion", "chat", chat(5, 7), {IN: 1.5, OUT: 2}, "5*1.5 + 7*2"),
        *("https://platform.openai.com/docs/api-reference/completions/object", OPENAI_PRICES),
    ),
    Example(
        *("openai embedding", "chat", {"prompt_tokens": 8, "total_tokens": 8}, {IN: 0.02, OUT: 0}, "8*0.02"),
        *("https://platform.openai.com/docs/api-reference/embeddings/create", OPENAI_PRICES),
    ),
    Example(
        *("responses", "responses", response(36, 87, {"cached_tokens": 0}, {"reasoning_tokens": 0}), GPT_4O),
        *("36*2.5 + 87*10", OPENAI_RESPONSES, OPENAI_PRICES),
    ),
    Example(
        *("responses reasoning", "responses", response(81, 1035, {"cached_tokens": 64}, {"reasoning_tokens": 832})),
        *(GPT_5, "17*1.25 + 64*0.125 + 203*10 + 832*10", OPENAI_RESPONSES, OPENAI_PRICES),
    ),
    Example(
        *("responses priority", "responses", response(100, 50, {"cached_tokens": 0}, {"reasoning_tokens": 0}), GPT_54),
        *("100*5 + 50*30", OPENAI_RESPONSES, OPENAI_PRICES),
        tier="priority",
    ),
    Example(
        *("responses web search", "responses", response(328, 356, {"cached_tokens": 0}, {"reasoning_tokens": 0})),
        *(GPT_5, "328*1.25 + 356*10 + 2*10000", OPENAI_RESPONSES, OPENAI_PRICES),
        each=searches(0.01),
        output=("web_search_call", "message", "web_search_call"),
    ),
    Example(
        *("azure", "chat", chat(33, 557, {"cached_tokens": 0, "audio_tokens": 0}, NONE_REASONED), GPT_4O),
        "33*2.5 + 557*10",
        "https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference",
        "https://azure.microsoft.com/en-us/pricing/details/cognitive-services/openai-service/",
    ),
    Example("anthropic plain", "messages", message(2095, 503), SONNET, "2095*3 + 503*15", ANTHROPIC, ANTHROPIC_PRICES),
    Example(
        *("anthropic cache read", "messages", message(50, 503, read=100_000), SONNET),
        *("50*3 + 100000*0.3 + 503*15", ANTHROPIC_CACHE, ANTHROPIC_PRICES),
    ),
    Example(
        *("anthropic cache write of both lives", "messages"),
        message(
            *(2048, 503, 1800, 248 + 100),
            cache_creation={"ephemeral_5m_input_tokens": 248, "ephemeral_1h_input_tokens": 100},
        ),
        *(SONNET, "2048*3 + 1800*0.3 + 248*3.75 + 100*6 + 503*15", ANTHROPIC_CACHE, ANTHROPIC_PRICES),
    ),
    Example(
        *("anthropic batch", "messages", message(1000, 100, service_tier="batch"), SONNET, "1000*1.5 + 100*7.5"),
        *("https://docs.anthropic.com/en/api/retrieving-message-batch-results", ANTHROPIC_PRICES),
    ),
    Example(
        *("anthropic web search", "messages"),
        *(message(105, 6039, 7123, 7345, server_tool_use={"web_search_requests": 1}), SONNET),
        "105*3 + 7123*0.3 + 7345*3.75 + 6039*15 + 1*10000",
        "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-search-tool",
        ANTHROPIC_PRICES,
        each=searches(0.01),
    ),
    Example(
        *("anthropic in the US", "messages", message(1000, 100, inference_geo="us"), OPUS, "1000*5.5 + 100*27.5"),
        *("https://docs.anthropic.com/en/docs/build-with-claude/data-residency", ANTHROPIC_PRICES),
        each={"provider_specific_entry": {"us": 1.1}},
    ),
    Example(
        *("anthropic by way of LiteLLM", "chat"),
        chat(
            *(2150, 503),
            {
                "cached_tokens": 1800,
                "cache_creation_tokens": 300,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
            },
            cache_creation_input_tokens=300,
            cache_read_input_tokens=1800,
        ),
        *(SONNET, "50*3 + 1800*0.3 + 200*3.75 + 100*6 + 503*15"),
        *("https://docs.litellm.ai/docs/completion/prompt_caching", ANTHROPIC_PRICES),
    ),
    Example(
        *(
            "bedrock claude, long",
            "chat",
            chat(200_100, 400, {"cached_tokens": 150_000, "cache_creation_tokens": 50_000}),
        ),
        *(SONNET_BEDROCK, "100*6.6 + 150000*0.66 + 50000*8.25 + 400*24.75", BEDROCK, BEDROCK_PRICES),
    ),
    Example(
        *("bedrock nova", "chat", chat(500, 200, {"cached_tokens": 100}), {IN: 0.8, HIT: 0.2, OUT: 3.2}),
        *("400*0.8 + 100*0.2 + 200*3.2", BEDROCK, BEDROCK_PRICES),
    ),
    Example(
        *(
            "gemini thinking",
            "chat",
            chat(40, 1200, {"text_tokens": 40}, {"reasoning_tokens": 900, "text_tokens": 300}),
        ),
        *(FLASH, "40*0.3 + 300*2.5 + 900*2.5", GEMINI, GEMINI_PRICES),
    ),
    Example(
        *("gemini audio, cached", "chat"),
        chat(3000, 50, {"cached_tokens": 1000, "text_tokens": 1400, "audio_tokens": 600, "image_tokens": 0}),
        *(FLASH, "1400*0.3 + 600*1 + 1000*0.03 + 50*2.5", GEMINI, GEMINI_PRICES),
    ),
    Example(
        *("gemini long", "chat", chat(250_000, 2000, {"cached_tokens": 50_000}), GEMINI_PRO),
        *("200000*2.5 + 50000*0.25 + 2000*15", GEMINI, GEMINI_PRICES),
    ),
    Example(
        *("gemini grounded", "chat", chat(20, 200, {"text_tokens": 20, "web_search_requests": 3}), FLASH),
        *("20*0.3 + 200*2.5 + 1*35000", GEMINI, GEMINI_PRICES),
        each={**searches(0.035), "litellm_provider": "gemini"},
    ),
    Example(
        *(
            "gemini makes an image",
            "chat",
            chat(12, 1300, {"text_tokens": 12}, {"image_tokens": 1290, "text_tokens": 10}),
        ),
        {IN: 0.3, OUT: 2.5, "output_cost_per_image_token": 30},
        *("12*0.3 + 10*2.5 + 1290*30", GEMINI, GEMINI_PRICES),
        each={"output_cost_per_image": 0.039},
    ),
    Example(
        *("deepseek", "chat", chat(2000, 300, prompt_cache_hit_tokens=1536, prompt_cache_miss_tokens=464)),
        *(DEEPSEEK_CHAT, "464*0.28 + 1536*0.028 + 300*0.42", DEEPSEEK, DEEPSEEK_PRICES),
    ),
    Example(
        *("deepseek reasoner", "chat", chat(14, 500, said={"reasoning_tokens": 420}, prompt_cache_hit_tokens=0)),
        *(DEEPSEEK_CHAT, "14*0.28 + 80*0.42 + 420*0.42", DEEPSEEK, DEEPSEEK_PRICES),
    ),
    Example(
        *("xai, reasoning beside", "chat"),
        {
            **chat(32, 9, {"text_tokens": 32, "cached_tokens": 6}, {"reasoning_tokens": 94, "audio_tokens": 0}),
            "total_tokens": 135,
            "num_sources_used": 0,
        },
        *(GROK, "26*1.25 + 6*0.2 + 9*2.5 + 94*2.5", XAI, XAI_PRICES),
        each={"litellm_provider": "xai"},
    ),
    Example(
        *("xai at its edge", "chat", chat(200_000, 10), GROK, "200000*2.5 + 10*5", XAI, XAI_PRICES),
        each={"litellm_provider": "xai"},
    ),
    Example(
        *("mistral", "chat", chat(16, 34), {IN: 1.5, HIT: 0.15, OUT: 7.5}, "16*1.5 + 34*7.5", MISTRAL, MISTRAL_PRICES)
    ),
    Example(
        *("mistral embedding", "chat", chat(15, 0), {IN: 0.1}, "15*0.1"),
        *("https://docs.mistral.ai/capabilities/embeddings/overview/", MISTRAL_PRICES),
    ),
    Example(
        *("groq", "chat", chat(18, 556, {"cached_tokens": 10}, queue_time=0.03, total_time=0.46)),
        *({IN: 0.15, HIT: 0.075, OUT: 0.6}, "8*0.15 + 10*0.075 + 556*0.6", GROQ, GROQ_PRICES),
        tier="on_demand",
    ),
    Example(
        *("openrouter, whose own cost is not taken", "chat"),
        chat(
            194,
            2,
            {"cached_tokens": 0},
            {"reasoning_tokens": 0},
            cost=0.95,
            cost_details={"upstream_inference_cost": 19},
        ),
        *({IN: 3, OUT: 15}, "194*3 + 2*15", OPENROUTER, "https://openrouter.ai/models"),
    ),
    Example(
        *("perplexity", "chat"),
        chat(
            14, 70, search_context_size="low", cost={"input_tokens_cost": 0, "request_cost": 0.005, "total_cost": 0.01}
        ),
        *({IN: 1, OUT: 1}, "14*1 + 70*1 + 1*5000", PERPLEXITY, PERPLEXITY_PRICES),
        each=searches(0.005, 0.008, 0.012),
    ),
    Example(
        *("perplexity deep research", "chat"),
        chat(33, 7163, citation_tokens=20_016, num_search_queries=18, reasoning_tokens=73_997),
        *({IN: 2, OUT: 8, THINK: 3}, "33*2 + 7163*8 + 73997*3 + 20016*2 + 18*5000", PERPLEXITY, PERPLEXITY_PRICES),
        each={**searches(0.005), "citation_cost_per_token": 2e-6},
    ),
    Example(
        *("cohere by its compatible API", "chat", chat(63, 149), {IN: 2.5, OUT: 10}, "63*2.5 + 149*10"),
        *("https://docs.cohere.com/docs/compatibility-api", COHERE_PRICES),
    ),
    Example(
        *("cohere image embedding", "chat", chat(1000, 0, {"text_tokens": 0, "image_tokens": 1000})),
        *({IN: 0.12, OUT: 0, "input_cost_per_image_token": 0.47}, "1000*0.47"),
        *("https://docs.cohere.com/reference/embed", COHERE_PRICES),
    ),
    Example(
        *("moonshot", "chat", chat(1100, 90, cached_tokens=1000), {IN: 0.6, HIT: 0.1, OUT: 3}),
        *("100*0.6 + 1000*0.1 + 90*3", "https://platform.moonshot.ai/docs/api/chat"),
        "https://platform.moonshot.ai/docs/pricing/chat",
    ),
    Example(
        *("qwen, short", "chat", chat(256_000, 100), {}, "256000*0.05 + 100*0.4", QWEN, QWEN),
        each={"tiered_pricing": QWEN_FLASH},
    ),
    Example(
        *("qwen, long", "chat", chat(256_001, 100), {}, "256001*0.25 + 100*2", QWEN, QWEN),
        each={"tiered_pricing": QWEN_FLASH},
    ),
)
