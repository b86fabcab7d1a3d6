"""What a reply costs."""

from __future__ import annotations

import pytest

from prefect_routines.session.pricing import DEAREST, dollars, is_priced, tokens_of

MANY = {"input": 1_000_000, "cache_read": 1_000_000, "cache_write": 1_000_000, "output": 1_000_000}


def test_each_kind_of_token_has_its_price() -> None:
    """Reading from the cache is cheaper than reading anew, writing to it dearer, output dearest."""
    nothing = dict.fromkeys(MANY, 0)
    price = {kind: dollars("claude-opus-5-5", {**nothing, kind: 1000}) for kind in MANY}
    assert 0 < price["cache_read"] < price["input"] < price["cache_write"] < price["output"]
    assert dollars("claude-opus-5-5", nothing) == 0


def test_an_unknown_model_costs_what_the_dearest_does() -> None:
    """A budget must not be overrun for want of a price."""
    assert not is_priced("claude-nova-9")
    assert dollars("claude-nova-9", MANY) == dollars(DEAREST, MANY) > 0


def test_no_known_model_is_dearer_than_the_dearest() -> None:
    """The constant is true of the tables that are installed."""
    from genai_prices.data import providers

    [anthropic] = [provider for provider in providers if provider.id == "anthropic"]
    for kind in ("input", "output"):
        one = {**dict.fromkeys(MANY, 0), kind: 1000}
        assert dollars(DEAREST, one) == max(dollars(model.id, one) for model in anthropic.models), kind


def test_the_bill_of_a_compaction_is_in_its_iterations() -> None:
    """The top-level numbers are zero then."""
    usage = {"input_tokens": 0, "output_tokens": 0, "iterations": [{"input_tokens": 5, "output_tokens": 2}, {"output_tokens": 3}]}
    assert tokens_of(usage) == {"input": 5, "cache_read": 0, "cache_write": 0, "output": 5}


@pytest.mark.parametrize("usage", [{}, {"input_tokens": None}, {"iterations": None}, {"iterations": []}])
def test_missing_numbers_are_zero(usage: dict[str, None]) -> None:
    """Other endpoints leave fields out or null."""
    assert sum(tokens_of(usage).values()) == 0
