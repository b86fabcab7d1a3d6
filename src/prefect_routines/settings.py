"""What an author may set: repositories, policy, budget, model, checks - and how a deployment overrides it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, create_model, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema

from prefect_routines.audience import Audience
from prefect_routines.errors import SettingsError
from prefect_routines.policy import Policy, Rule
from prefect_routines.when import When

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
FILE_TOOLS = ("read", "write", "edit", "glob", "grep")
BLOCK = re.compile(r"[a-z0-9-]+/[a-z0-9-]+\Z")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Repository(_Model):
    """A git repository a session may use. It is cloned into the workspace under its name.

    Example:
        ```python
        Repository(url="https://github.com/acme/docs", credentials="github-credentials/docs-bot")
        ```
    """

    url: str = Field(description="https, ssh or file URL, or a local path. Never with a password in it: name a block in `credentials`.")
    name: str = Field(default="", description="Directory in the workspace, and the name in policy rules. Default: the URL's last part.")
    branch: str | None = Field(default=None, description="Branch to start from. Default: the remote's default branch.")
    credentials: str | None = Field(
        default=None, description="Prefect block with the token or key: 'github-credentials/NAME' or 'secret/NAME'."
    )
    guarded: list[str] = Field(
        default_factory=list, description="Guarded paths that may be changed here after all, e.g. '.github/workflows/*'."
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Prefect checks parameters against the schema before they get here: it has to say that an address alone will do."""
        return {"anyOf": [{"type": "string", "title": "address"}, handler(schema)]}

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _named(self) -> Repository:
        if not self.url or "\0" in self.url or self.url.startswith("-"):
            raise ValueError(f"{self.url!r} is not the address of a repository")
        if "://" in self.url and urlsplit(self.url).password:
            raise ValueError("the URL contains a password; put it into a block and name that in `credentials`")
        if not self.name:
            last = re.split(r"[/:]", self.url.rstrip("/"))[-1].removesuffix(".git")
            object.__setattr__(self, "name", last)
        if not NAME.match(self.name):
            raise ValueError(f"{self.name!r} cannot name a directory of the workspace; set `name`")
        return self


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Check:
    """A command that must succeed before work leaves the workspace. It runs in a fresh sandbox on a fresh checkout.

    Args:
        repository: Name of the repository it checks; the command runs in its root.
        command: Shell command. Exit status 0 means it passed.
        timeout: Seconds it may take.

    Example:
        ```python
        Check("docs", "mkdocs build --strict")
        ```
    """

    repository: str = Field(description="Name of the repository; the command runs in its root.")
    command: str = Field(description="Shell command; exit status 0 means that it passed.")
    timeout: float = Field(default=600, gt=0, le=7200, description="Seconds it may take.")


class Budget(_Model):
    """What one session may use. Checked before each request to Claude."""

    turns: int = Field(default=200, ge=1, description="Requests to Claude.")
    tokens: int | None = Field(default=None, ge=1, description="Tokens in all: input, cached input and output.")
    dollars: float | None = Field(default=10.0, gt=0, description="Cost of the model in US dollars.")
    minutes: float = Field(default=60.0, gt=0, description="Wall time.")
    dollars_per_day: float | None = Field(
        default=None, gt=0, description="Cost of the model in US dollars of all sessions of the routine in one day (UTC)."
    )
    on_budget: Literal["end", "pause"] = Field(
        default="end",
        description="What happens when it is used up. 'end': an orderly end, verdict needs_attention; 'pause': a person can raise it.",
    )


class Deadlines(_Model):
    """How long a run may stand still before it fails with the cause. Nothing hangs in silence."""

    first_reply: float = Field(default=180, gt=0, description="Seconds from the end of the preparations to Claude's first word.")
    stall: float = Field(default=300, gt=0, description="Seconds without a new word while Claude replies; then the turn is tried again.")
    retry: float = Field(default=900, gt=0, description="Seconds during which one turn is tried again when the service fails or is busy.")
    tool: float = Field(default=1800, gt=0, description="Seconds one tool call may take.")


class Answers(_Model):
    """How people answer what a session waits for."""

    minutes: float = Field(default=1440, gt=0, description="How long an answer is waited for.")
    default: Literal["deny", "approve", "stop"] = Field(default="deny", description="What counts when none came in time.")
    people: list[str] = Field(
        default_factory=list,
        description="Who may answer, as the journal names them: a token's name, 'ada@acme.com', 'slack:T1/U2', 'login@machine'. "
        "Then not the Prefect UI, which knows no names. Default: everybody who can reach it.",
    )


class Limits(_Model):
    """What the processes of the sandbox may use."""

    memory_mb: int = Field(default=4096, ge=64, description="Memory of one process, in MiB.")
    processes: int = Field(default=512, ge=16, description="Processes and threads of the session.")
    file_mb: int = Field(default=2048, ge=1, description="Size of one file, in MiB.")
    workspace_mb: int = Field(default=10240, ge=10, description="Size of the workspace, in MiB.")
    snapshot_mb: int = Field(
        default=512, ge=0, description="Size of the compressed snapshot that is kept at each end of the session, in MiB; 0: none is made."
    )


class Resume(_Model):
    """Go on with an earlier session of the routine instead of beginning one. Only as an override: for one run.

    Example:
        ```python
        await docs_sync(settings={"resume": {"session": "ses-68a1...", "message": "Mention the new flag, too."}})
        ```
    """

    session: str = Field(min_length=1, max_length=200, description="Id of the session.")
    message: str = Field(min_length=1, max_length=100_000, description="The follow-up: what Claude is asked to do next.")
    fork: bool = Field(default=False, description="Begin a new session with a copy of the conversation, and leave the old one as it is.")
    at: int | None = Field(default=None, ge=1, description="With `fork`: the journal entry up to which the conversation is copied.")
    transcript_only: bool = Field(default=False, description="Go on with fresh clones when the workspace is lost.")
    by: str = Field(default="", max_length=200, description="Who asks for it.")
    seen: int | None = Field(
        default=None, description="The session's last entry when this was asked for: if another run has gone on since, this one does not."
    )

    @model_validator(mode="after")
    def _whole(self) -> Resume:
        if not self.message.strip():
            raise ValueError("the message is empty; say what is to be done next")
        if self.at is not None and not self.fork:
            raise ValueError("`at` goes with `fork`: a session itself goes on at its end")
        return self


class Starting(_Model):
    """When a routine starts, beyond what its triggers say. The gateway reads this part before there is a run; the run checks it again."""

    when: list[When] = Field(
        default_factory=list,
        description="Conditions on the fields of the payload that started the run; all must hold, or nothing is started.",
    )
    own_events: Literal["ignore", "others", "all"] = Field(
        default="ignore",
        description="Whether events that our own routines have caused start this one: 'others' those of other routines, 'all' its own too.",
    )
    chain_depth: int = Field(default=3, ge=1, le=20, description="How many runs may cause each other in a row, this one included.")
    coalesce: Literal["queue", "new", "message", "skip"] = Field(
        default="queue",
        description="What a further event about the same issue, pull request or branch does while a run is at it: 'queue' the newest, "
        "start a 'new' run, go to the running session as a 'message', or 'skip'.",
    )
    missed: Literal["newest", "skip", "all"] = Field(
        default="newest", description="Which of the fire times that were missed, with the server down say, are made up for."
    )


class Settings(Starting):
    """All that can be set for a routine, with the values that hold when nobody says otherwise."""

    repositories: list[Repository] = Field(default_factory=list, description="Repositories the session may use.")
    connectors: list[str] = Field(default=[], description="Blocks that give tools for outside services, 'github/docs-bot', 'slack/docs'.")
    policy: Policy = Field(default_factory=Policy, description="Which tool calls are allowed, asked for, denied.")
    checks: list[Check] = Field(default_factory=list, description="Commands that must pass before work leaves the workspace.")
    check_rounds: int = Field(default=2, ge=0, description="How often failed checks go back to Claude before they decide the verdict.")
    budget: Budget = Field(default_factory=Budget, description="Turns, tokens, dollars and minutes of one session.")
    deadlines: Deadlines = Field(default_factory=Deadlines, description="How long a run may stand still.")
    model: str = Field(default="claude-opus-5-5", min_length=1, description="Claude model.")
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(default=None, description="Effort; default: the model's own.")
    max_tokens: int = Field(default=32_000, ge=1, description="Most output tokens of one reply.")
    claude: str | None = Field(
        default=None,
        description="Block with the login, 'anthropic-credentials/NAME'. Default: ANTHROPIC_API_KEY of the worker's environment.",
    )
    network: list[str] = Field(
        default_factory=list,
        description="Hosts the sandbox may reach: names, '*.suffix', or presets such as '@python', '@github'. Default: none.",
    )
    environment: dict[str, str] = Field(default={}, description="Environment variables of the sandbox. No secrets: Claude can read them.")
    setup: str | None = Field(default=None, description="Shell script that installs tools; its result is kept and reused until it changes.")
    limits: Limits = Field(default_factory=Limits, description="Limits of the sandbox.")
    sandbox: Literal["bubblewrap", "none"] = Field(
        default="bubblewrap", description="'none' runs commands unprotected on the worker: for trusted tinkering only."
    )
    unattended: Literal["wait", "deny", "fail"] | None = Field(
        default=None,
        description="What becomes of a call that needs a person: the run can 'wait' for one, 'deny' the call, or 'fail'. "
        "Default: calls under an `ask` rule wait, those that no rule mentions are denied.",
    )
    answers: Answers = Field(default_factory=Answers, description="How long a person is waited for, and who may answer.")
    notify: Audience = []
    mentions: list[str] = Field(default_factory=list, description="People and teams whom text that is written outside may mention.")
    links: list[str] = Field(
        default_factory=list,
        description="Hosts to which such text may link once the session has read text from outside. "
        "Default: those of its repositories and connectors.",
    )
    rehearsal: bool = Field(default=False, description="Outward writes are captured and shown instead of sent.")
    resume: Resume | None = Field(default=None, description="An earlier session to go on with, and what is asked of it.")

    @field_validator("environment")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not VARIABLE.match(name) or "\0" in text:
                raise ValueError(f"{name!r} cannot be an environment variable")
        return value

    @field_validator("connectors")
    @classmethod
    def _blocks(cls, value: list[str]) -> list[str]:
        for reference in value:
            if not BLOCK.match(reference):
                raise ValueError(f"{reference!r} does not name a block; write it as 'type/name', for example 'github/docs-bot'")
        if len(set(value)) < len(value):
            raise ValueError("a connector is named twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [repository.name for repository in self.repositories]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two repositories are called {', '.join(sorted(twice))}; give one of them another `name`")
        for check in self.checks:
            if check.repository not in names:
                raise ValueError(
                    f"the check '{check.command}' names the repository {check.repository!r}; there is {', '.join(names) or 'none'}"
                )
        if self.sandbox == "none" and self.network:
            raise ValueError("sandbox='none' cannot be combined with network: nothing would hold the model to those hosts")
        if self.sandbox == "none" and self.connectors:
            raise ValueError("sandbox='none' cannot be combined with connectors: the model could read their secrets from the worker")
        return self

    def hosts(self) -> list[str]:
        """The hosts of the repositories."""
        return [host for repository in self.repositories if (host := urlsplit(repository.url).hostname)]

    def check_rules(self, tools: Mapping[str, Iterable[str]]) -> None:
        """Refuse rules that can never match: a slip of the pen, and a `deny` that denies nothing.

        Args:
            tools: Names of the arguments of each tool.

        Raises:
            SettingsError: It names the rule and what there is.
        """
        if unknown := self.policy.unknown(tools):
            raise SettingsError(_unmatched(unknown[0], tools))
        for _, rule in self.policy.rules():
            if rule.tool in FILE_TOOLS and any(glob.startswith(("/workspace", "./")) for _, glob in rule.arguments):
                example = f"'{rule.tool}(docs/*)'"
                raise SettingsError(f"policy: {rule.text!r}: paths in rules count from /workspace; leave that out, e.g. {example}")
            if rule.tool == "push" and not any(
                rule.matches("push", {"repository": known.name}, "repository") for known in self.repositories
            ):
                names = ", ".join(known.name for known in self.repositories) or "none"
                raise SettingsError(f"policy: the rule {rule.text!r} matches none of the repositories; there is {names}")


def _unmatched(text: str, tools: Mapping[str, Iterable[str]]) -> str:
    """Why a rule can never match, and what may have been meant."""
    rule = Rule.parse(text)
    if fitting := [tool for tool in tools if rule.names(tool)]:
        which = f"{fitting[0]} has {', '.join(tools[fitting[0]]) or 'none'}"
        return f"policy: the rule {text!r} names an argument that is not there; {which}"
    close = difflib.get_close_matches(rule.tool, tools, 3)
    meant = f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(sorted(tools))}"
    return f"policy: the rule {text!r} names no tool of this routine; {meant}"


class _Override(BaseModel):
    # the title is what the form's switch between a value and None says
    model_config = ConfigDict(extra="forbid", title="change")

    @model_validator(mode="before")
    @classmethod
    def _of_another_routine(cls, value: Any) -> Any:
        """Each routine has a form of its own; what was filled in for one fits the others."""
        return {name: getattr(value, name) for name in value.model_fields_set} if isinstance(value, _Override) else value


def override_of(model: type[BaseModel], current: BaseModel | None = None) -> type[BaseModel]:
    """The same model with every field optional: a form in which an empty field means "as the routine says".

    Args:
        model: `Settings`, or a part of it.
        current: What holds without an override; the form shows it with each field.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        value = getattr(current, name) if current is not None else None
        about = field.description or ""
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = override_of(kind, value)
        elif current is not None:
            about += f" As set: {_shown(value)}."
        if type(None) not in get_args(kind):
            kind = kind | None
        fields[name] = (kind, Field(default=None, title=name.replace("_", " ").capitalize(), description=about))
    made: type[BaseModel] = create_model(
        f"{model.__name__}Override", __base__=_Override, __doc__="Empty fields are as the routine says.", **fields
    )
    if isinstance(current, Starting):  # Prefect keeps the schema with the deployment: there the gateway finds what the author has set
        starting = current.model_dump(mode="json", include=set(Starting.model_fields), exclude_defaults=True)
        made.model_config["json_schema_extra"] = {"x-starting": starting}
        made.model_rebuild(force=True)
    return made


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, Repository):
        return value.name
    if isinstance(value, Check):
        return f"{value.command} in {value.repository}"
    text = "none" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


SettingsOverride = override_of(Settings)
"""The reserved `settings` parameter of each routine: what a deployment, or a person in the UI, wants otherwise."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def merge(base: ModelT, override: BaseModel | None) -> ModelT:
    """The settings of one run: what is absent is inherited, a list replaces, an author's `deny` stays.

    Args:
        base: The routine's settings.
        override: What the deployment or a person set (`SettingsOverride`), or None.

    Raises:
        SettingsError: The result contradicts itself, for example a check that names no repository.
    """
    if override is None:
        return base
    changed: dict[str, Any] = {}
    for name in type(override).model_fields:
        value = getattr(override, name)
        if value is None:
            continue
        mine = getattr(base, name)
        if isinstance(value, BaseModel) and isinstance(mine, BaseModel):
            value = merge(mine, value)
        elif isinstance(base, Policy) and name == "deny":
            value = [*mine, *(rule for rule in value if rule not in mine)]
        changed[name] = value
    current = {name: getattr(base, name) for name in type(base).model_fields}
    try:
        return type(base).model_validate({**current, **changed})
    except ValidationError as error:
        raise SettingsError(f"settings: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints as one readable line: where, and what."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
