"""The floor: the plainest loop over the Anthropic SDK that does the same work, with a bash tool on a subprocess and nothing kept."""

from __future__ import annotations

import asyncio
from typing import Any

from anthropic import AsyncAnthropic

MODEL = "claude-opus-5-5"
SYSTEM = "You carry out a routine in a sandbox. Work until it is done, then call `report` once."
TOOLS: list[dict[str, Any]] = [
    {
        "name": "bash",
        "description": "Run a command.",
        "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
    {
        "name": "report",
        "description": "End the session.",
        "input_schema": {"type": "object", "properties": {"verdict": {"type": "string"}, "summary": {"type": "string"}}},
    },
]


async def converse(client: AsyncAnthropic, prompt: str) -> None:
    """Work on a prompt until Claude reports."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    while True:
        async with client.beta.messages.stream(model=MODEL, max_tokens=32_000, system=SYSTEM, tools=TOOLS, messages=messages) as stream:  # type: ignore[arg-type]  # plain dictionaries, as one writes them
            reply = await stream.get_final_message()
        messages.append({"role": "assistant", "content": [block.to_dict() for block in reply.content]})
        calls = [block for block in reply.content if block.type == "tool_use"]
        if any(call.name == "report" for call in calls):
            return
        results = await asyncio.gather(*(bash(str(call.input["command"])) for call in calls))
        answers = [{"type": "tool_result", "tool_use_id": call.id, "content": text} for call, text in zip(calls, results, strict=True)]
        messages.append({"role": "user", "content": answers})


async def bash(command: str) -> str:
    """Run a command and return what it says."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return said.decode("utf-8", "replace") or "[no output]"
