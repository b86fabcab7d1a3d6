"""All that the Messages API refuses, in the order it looks: headers, fields, tools, messages, prefixes.

One function per rule: a request in, a `Problem` or None out. Rules of the transcript are in `message_rules`, of caching, thinking and
compaction in `prefix_rules`.
"""

from __future__ import annotations

import re

from prefect_routines.testing import message_rules, prefix_rules
from prefect_routines.testing.asked import Asked, Problem, Rule

VERSIONS = {"2023-06-01", "2026-10-21"}
"""https://platform.claude.com/docs/en/api/versioning"""

FIELDS = {
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "thinking",
    "tool_choice",
    "tools",
}
SAMPLING = {"temperature", "top_p", "top_k"}
BETA_FIELDS = {
    "billing_policy": {"user-profiles-billing-2026-10-01"},
    "compaction": {"compact-2026-09-04"},
    "context_management": {"context-management-2025-06-27", "compact-2026-01-12"},
    "fallback_credit_token": {"fallback-credit-2026-06-01", "fallback-credit-2026-07-01"},
    "fallbacks": {"server-side-fallback-2026-06-01", "server-side-fallback-2026-07-01"},
    "mcp_servers": {"mcp-client-2025-04-04", "mcp-client-2025-11-20", "mcp-client-2026-09-15"},
    "thread": {"message-threads-2026-08-12"},
}
"""Fields that exist only with a beta header, and the betas that bring them (SDK `types/anthropic_beta_param.py`)."""


def authentication(asked: Asked) -> Problem | None:
    """A key is there, and it is the right one. https://platform.claude.com/docs/en/api/errors"""
    given = asked.headers.get("x-api-key")
    bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
    if not given and not bearer:
        return Problem("x-api-key header is required", 401, "authentication_error")
    if (given or bearer) != asked.api_key:
        return Problem("invalid x-api-key" if given else "Invalid bearer token", 401, "authentication_error")
    return None


def version(asked: Asked) -> Problem | None:
    """The API's version is named and known."""
    if not asked.version:
        return Problem("anthropic-version: header is required")
    if asked.version not in VERSIONS:
        return Problem(f'anthropic-version: "{asked.version}" is not a valid version')
    return None


def betas(asked: Asked) -> Problem | None:
    """Beta names have the form name-date; a misspelt one is refused rather than ignored."""
    odd = sorted(name for name in asked.betas if not re.fullmatch(r"[a-z0-9-]+-\d{4}-\d{2}-\d{2}", name))
    if odd:
        names = ", ".join(f"`{name}`" for name in odd)
        return Problem(
            f"Unexpected value(s) {names} for the `anthropic-beta` header. "
            "Please consult our documentation at docs.claude.com or try again without the header."
        )
    return None


def fields(asked: Asked) -> Problem | None:
    """Only known fields, beta fields only with their header; sampling parameters are gone since version 2026-10-21."""
    for name in asked.body:
        if name in FIELDS or asked.betas & BETA_FIELDS.get(name, set()):
            continue
        if name in SAMPLING and asked.version < "2026-10-21":  # https://platform.claude.com/docs/en/api/migration-2026-10-21
            continue
        return Problem(f"{name}: Extra inputs are not permitted")
    return None


def nested_beta_fields(asked: Asked) -> Problem | None:
    """The same for fields inside other fields."""
    places = [
        ("thinking.adaptive.block_binding", (asked.body.get("thinking") or {}).get("block_binding"), prefix_rules.DROP_BETA),
        ("output_config.task_budget", (asked.body.get("output_config") or {}).get("task_budget"), "task-budgets-2026-03-13"),
    ]
    for index, message in enumerate(asked.messages):
        places.append((f"messages.{index}.clear_at", message.get("clear_at"), "mid-conversation-system-clear-at-2026-08-21"))
        places.append((f"messages.{index}.output_config", message.get("output_config"), "mid-conversation-output-config-2026-07-01"))
    for index, position, _, block in asked.blocks:
        change = block if block["type"] in {"tool_addition", "tool_removal"} else None
        places.append((f"messages.{index}.content.{position}", change, "mid-conversation-tool-changes-2026-07-01"))
    for path, value, beta in places:
        if value is not None and beta not in asked.betas:
            return Problem(f"{path}: Extra inputs are not permitted")
    return None


def model(asked: Asked) -> Problem | None:
    """The model exists."""
    name = asked.body.get("model")
    if not isinstance(name, str):
        return Problem("model: Field required")
    return None if name in asked.models else Problem(f"model: {name}", 404, "not_found_error")


def max_tokens(asked: Asked) -> Problem | None:
    """There is a limit for the answer, and the model can write that much; 0 only warms the cache."""
    if asked.counting:
        return None
    limit = asked.body.get("max_tokens")
    if limit is None:
        return Problem("max_tokens: Field required")
    if not isinstance(limit, int) or isinstance(limit, bool):
        return Problem("max_tokens: Input should be a valid integer")
    if limit < 0:
        return Problem("max_tokens: Input should be greater than or equal to 0")
    if limit > asked.model.output:
        return Problem(
            f"max_tokens: {limit} > {asked.model.output}, which is the maximum allowed number of output tokens for {asked.model.id}"
        )
    return None


def system(asked: Asked) -> Problem | None:
    """The system prompt is a string or a list of text blocks with text."""
    prompt = asked.body.get("system")
    if prompt is None or isinstance(prompt, str):
        return None
    if not isinstance(prompt, list):
        return Problem("system: Input should be a valid string or list")
    for index, block in enumerate(prompt):
        if not isinstance(block, dict) or block.get("type") != "text":
            return Problem(f"system.{index}.type: Input should be 'text'")
        if not block.get("text") and not block.get("cache_control"):  # with a marker, the marker is what is refused
            return Problem("system: text content blocks must be non-empty")
    return None


def tools(asked: Asked) -> Problem | None:
    """Names are unique and of legal characters; a tool of the caller's own has a schema for an object.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools
    """
    listed = asked.body.get("tools") or []
    if not isinstance(listed, list) or not all(isinstance(tool, dict) for tool in listed):
        return Problem("tools: Input should be a valid list")
    names: set[str] = set()
    for index, tool in enumerate(listed):
        if str(tool.get("type", "custom")).partition("_20")[0].endswith("toolset"):
            continue  # a toolset names its tools itself
        name = tool.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name):
            return Problem(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if name in names:
            return Problem("tools: Tool names must be unique.")
        names.add(name)
        if tool.get("type") in {None, "custom"}:
            schema = tool.get("input_schema")
            if not isinstance(schema, dict):
                return Problem(f"tools.{index}.custom.input_schema: Field required")
            if schema.get("type") != "object":
                return Problem(f"tools.{index}.custom.input_schema.type: Input should be 'object'")
    return None


def tool_choice(asked: Asked) -> Problem | None:
    """A forced tool exists, and thinking that was asked for is not combined with force."""
    choice = asked.body.get("tool_choice")
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in {"auto", "any", "tool", "none"}:
        return Problem("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    names = {tool.get("name") for tool in asked.body.get("tools") or []}
    if kind != "none" and not names:
        return Problem("tool_choice: `tool_choice` may only be specified while providing `tools`.")
    if kind == "tool" and choice.get("name") not in names:
        return Problem(f"tool_choice.name: Tool '{choice.get('name')}' not found in provided tools")
    if kind in {"any", "tool"} and (asked.body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}:
        return Problem("Thinking may not be enabled when tool_choice forces tool use.")
    return None


def thinking(asked: Asked) -> Problem | None:
    """The model can think, or not think, in the way asked for.

    https://platform.claude.com/docs/en/build-with-claude/thinking#configuring-thinking
    """
    wish = asked.body.get("thinking")
    if wish is None:
        return None
    kind = wish.get("type") if isinstance(wish, dict) else None
    if kind not in {"adaptive", "enabled", "disabled", "between_tools"}:
        return Problem("thinking.type: Input should be 'adaptive', 'between_tools', 'disabled' or 'enabled'")
    if kind == "disabled" and asked.model.always_thinks:
        return Problem('"thinking.type.disabled" is not supported for this model.')
    if kind == "enabled" and asked.model.adaptive_only:
        return Problem(
            '"thinking.type.enabled" is not supported for this model. '
            'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        )
    return None


def thinking_budget(asked: Asked) -> Problem | None:
    """A budget for thinking is at least 1024 tokens and leaves room for the answer."""
    wish = asked.body.get("thinking") or {}
    if wish.get("type") != "enabled":
        return None
    budget = wish.get("budget_tokens")
    if not isinstance(budget, int) or budget < 1024:
        return Problem("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if budget >= asked.body.get("max_tokens", budget + 1):
        return Problem("`max_tokens` must be greater than `thinking.budget_tokens`.")
    return None


def output_config(asked: Asked) -> Problem | None:
    """Effort is one of five words; a format is a JSON schema."""
    wish = asked.body.get("output_config") or {}
    if not isinstance(wish, dict):
        return Problem("output_config: Input should be a valid dictionary")
    effort, shape = wish.get("effort"), wish.get("format")
    if effort not in {None, "low", "medium", "high", "xhigh", "max"}:
        return Problem("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    if shape is not None and (
        not isinstance(shape, dict) or shape.get("type") != "json_schema" or not isinstance(shape.get("schema"), dict)
    ):
        return Problem("output_config.format: Input should be a `json_schema` with a `schema`")
    return None


HEADER_RULES: tuple[Rule, ...] = (authentication, version, betas)
RULES: tuple[Rule, ...] = (
    model,
    max_tokens,
    fields,
    system,
    tools,
    tool_choice,
    thinking,
    thinking_budget,
    output_config,
    *message_rules.RULES,
    nested_beta_fields,
    *prefix_rules.RULES,
)


def refuse(asked: Asked, rules: tuple[Rule, ...] = (*HEADER_RULES, *RULES)) -> Problem | None:
    """The first problem, or None if the API would take the request.

    Example:
        >>> asked = Asked({"model": "claude-opus-5-5", "max_tokens": 9, "messages": []})
        >>> refuse(asked, RULES).message
        'messages: at least one message is required'
    """
    return next((problem for rule in rules if (problem := rule(asked)) is not None), None)
