"""The models that the scripted Messages API knows, with what differs between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """One model id. Source: https://platform.claude.com/docs/en/about-claude/models/overview."""

    id: str
    output: int = 128_000
    context: int = 1_000_000
    preserved: bool = True
    """Thinking is bound to its prefix (https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks#outcomes)."""
    always_thinks: bool = False
    adaptive_only: bool = True
    """Refuses `thinking.type = "enabled"`."""
    prefill: bool = False

    @property
    def display_name(self) -> str:
        """Says what it is, wherever a run shows its model: `Claude Opus 5.5 (scripted: no model answers)`."""
        family, *version = [part for part in self.id.removeprefix("claude-").split("-") if len(part) < 8 or not part.isdigit()]
        return f"Claude {family.capitalize()} {'.'.join(version)}".strip() + " (scripted: no model answers)"


def _older(id: str, *, adaptive_only: bool = False, prefill: bool = False) -> Model:
    return Model(id, output=64_000, context=200_000, preserved=False, adaptive_only=adaptive_only, prefill=prefill)


MODELS = {
    model.id: model
    for model in (
        Model("claude-fable-5-2", always_thinks=True),
        Model("claude-mythos-5-2", always_thinks=True),
        Model("claude-fable-5-1", always_thinks=True),
        Model("claude-mythos-5-1", always_thinks=True),
        Model("claude-opus-5-5", always_thinks=True),
        Model("claude-sonnet-5-5"),
        Model("claude-haiku-5-5"),
        Model("claude-fable-5", preserved=False, always_thinks=True),
        Model("claude-mythos-5", preserved=False, always_thinks=True),
        Model("claude-opus-5", preserved=False),
        Model("claude-sonnet-5", preserved=False),
        Model("claude-mythos-preview", preserved=False),
        Model("claude-opus-4-8", preserved=False),
        Model("claude-opus-4-7", preserved=False),
        Model("claude-opus-4-6", preserved=False, adaptive_only=False),
        Model("claude-sonnet-4-6", preserved=False, adaptive_only=False),
        *(
            _older(id, prefill=True)
            for id in (
                "claude-opus-4-5",
                "claude-opus-4-5-20251101",
                "claude-sonnet-4-5",
                "claude-sonnet-4-5-20250929",
                "claude-haiku-4-5",
                "claude-haiku-4-5-20251001",
            )
        ),
    )
}
