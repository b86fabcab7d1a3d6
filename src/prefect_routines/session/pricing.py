"""What a reply costs, by the price tables of genai-prices (offline)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

# The dearest model that is priced today. An unknown model is charged like it: a budget must not be overrun for want of a price.
DEAREST = "claude-opus-4-1"


def tokens_of(usage: Mapping[str, Any]) -> dict[str, int]:
    """The API's usage as four exclusive counts: input, cache_read, cache_write, output.

    `usage.iterations`, where present, is the whole bill: the tokens of a compaction are not in the top-level numbers.
    """
    parts = usage.get("iterations") or [usage]
    return {
        "input": sum(part.get("input_tokens") or 0 for part in parts),
        "cache_read": sum(part.get("cache_read_input_tokens") or 0 for part in parts),
        "cache_write": sum(part.get("cache_creation_input_tokens") or 0 for part in parts),
        "output": sum(part.get("output_tokens") or 0 for part in parts),
    }


def dollars(model: str, tokens: Mapping[str, int]) -> float:
    """Price of one request in US dollars. Per request, since long prompts have tiers of their own."""
    from genai_prices import Usage, calc_price

    # its input_tokens include the cached ones; the API's do not
    usage = Usage(
        input_tokens=tokens["input"] + tokens["cache_read"] + tokens["cache_write"],
        cache_read_tokens=tokens["cache_read"],
        cache_write_tokens=tokens["cache_write"],
        output_tokens=tokens["output"],
    )
    name = model if is_priced(model) else DEAREST
    return float(calc_price(usage, model_ref=name, provider_id="anthropic").total_price)


@cache
def is_priced(model: str) -> bool:
    """Whether the tables know the model; if not, the dearest known price is charged and the run says so."""
    from genai_prices import Usage, calc_price

    try:
        calc_price(Usage(input_tokens=1), model_ref=model, provider_id="anthropic")
    except LookupError:
        return False
    return True
