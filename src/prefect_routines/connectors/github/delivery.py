"""Writing what machines act on: releases, workflows, statuses and checks of commits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from prefect_routines.connectors.github.conversation import Body, GitHubWrites, Title, is_marked, marked
from prefect_routines.connectors.github.service import Number, RefName, Repository, Sha, part, ref, repo, web
from prefect_routines.errors import ToolError
from prefect_routines.outgoing import Outgoing
from prefect_routines.tools.tool import ToolContext, Write, tool

Name = Annotated[str, Field(min_length=1, max_length=100)]
Short = Annotated[str, Outgoing("github", 140, one_line=True)]
Workflow = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*\.ya?ml$")]  # by its number no rule would know it


class DeliveryWrites(GitHubWrites):
    """Releases, workflows and statuses."""

    @tool(target=("repository", "tag"), writes=True, outside=True)
    async def create_release(
        self, context: ToolContext, repository: Repository, tag: Name, name: Title, body: Body, draft: bool = False
    ) -> Write:
        """Create a release; the tag is made on the default branch if it is not there.

        Args:
            repository: 'owner/name'.
            tag: The tag.
            name: Title of the release.
            body: Notes, in Markdown.
            draft: Whether it is not published yet.
        """
        where = repo(repository, "releases")
        ref(tag)

        def said(item: Mapping[str, Any]) -> str:
            return f"Released {tag}: {item['html_url']}"

        async def find() -> str | None:
            # by its tag a draft cannot be looked up
            async for item in self._newest(where, pages=2, ascending=False):
                if item["tag_name"] == tag and is_marked(item, context):
                    return said(item)
            return None

        request = {"tag_name": tag, "name": name, "body": marked(body, context), "draft": draft}
        return self._write(repository, "POST", where, request, said, find)

    @tool(target=("repository", "workflow", "ref", "inputs"), writes=True, outside=True)
    async def dispatch_workflow(
        self, repository: Repository, workflow: Workflow, ref: RefName, inputs: dict[str, str] | None = None
    ) -> Write:
        """Start a workflow that has the trigger `workflow_dispatch`. Its run shows up in the list of workflow runs after some seconds.

        Args:
            repository: 'owner/name'.
            workflow: File name of the workflow, e.g. 'deploy.yml'.
            ref: Branch or tag to run it on.
            inputs: Its inputs.
        """
        where = repo(repository, "actions", "workflows", part(workflow))
        runs = f"{web(self._api)}/{repository}/actions/workflows/{workflow}"
        done = f"Started {workflow} on {ref}: {runs}"

        async def before() -> None:
            name = str((await self._read(where))["path"]).rpartition("/")[2]
            if name != workflow:
                raise ToolError(f"the workflow {workflow} is called {name} at GitHub; nothing was sent: use that name")

        # no `find`: nothing of a run says which request has started it
        request = {"ref": ref, "inputs": inputs or {}}
        return self._write(repository, "POST", f"{where}/dispatches", request, lambda _: done, None, before)

    @tool(target=("repository", "run"), writes=True, outside=True)
    async def rerun_workflow(self, repository: Repository, run: Number, attempt: Number = 1, failed_only: bool = False) -> Write:
        """Run a workflow run again.

        Args:
            repository: 'owner/name'.
            run: Id of the run.
            attempt: Its last attempt, as `run_attempt` in the list of workflow runs says: if there is a later one, nothing is done.
            failed_only: Whether only the jobs that failed run again.
        """
        where = repo(repository, "actions", "runs", str(run))
        done = f"Run {run} of {repository} runs again: {web(self._api)}/{repository}/actions/runs/{run}"

        async def later() -> int:
            return int((await self._read(where)).get("run_attempt") or 1)

        async def find() -> str | None:
            return done if await later() > attempt else None

        async def before() -> None:
            if (last := await later()) != attempt:
                raise ToolError(f"run {run} of {repository} is at attempt {last} and not {attempt}; look at that one first")

        return self._write(
            repository, "POST", f"{where}/{'rerun-failed-jobs' if failed_only else 'rerun'}", None, lambda _: done, find, before
        )

    @tool(target=("repository", "sha", "context"), writes=True, outside=True)
    async def set_status(
        self, repository: Repository, sha: Sha, state: Literal["error", "failure", "pending", "success"], context: Name, description: Short
    ) -> Write:
        """Set a status of a commit.

        Args:
            repository: 'owner/name'.
            sha: The commit.
            state: How it stands.
            context: Which status, e.g. 'docs/links'.
            description: A few words, at most 140 characters.
        """
        done = f"{context} of {repository} at {sha} is {state}: {web(self._api)}/{repository}/commit/{sha}"
        request = {"state": state, "context": context, "description": description}

        async def find() -> str | None:
            async for item in self._newest(repo(repository, "commits", sha, "statuses"), pages=2, ascending=False):
                if item["context"] == context:
                    return done if (item["state"], item.get("description") or "") == (state, description) else None
            return None

        return self._write(repository, "POST", repo(repository, "statuses", sha), request, lambda _: done, find)


class CheckWrites(GitHubWrites):
    """What only a GitHub App may do."""

    @tool(target=("repository", "sha", "name"), writes=True, outside=True)
    async def check_run(
        self,
        context: ToolContext,
        repository: Repository,
        sha: Sha,
        name: Name,
        conclusion: Literal["success", "failure", "neutral", "action_required"],
        title: Title,
        summary: Body,
    ) -> Write:
        """Add a finished check to a commit.

        Args:
            repository: 'owner/name'.
            sha: The commit.
            name: Which check, e.g. 'docs review'.
            conclusion: What it came to.
            title: One line.
            summary: What was found, in Markdown.
        """

        def said(item: Mapping[str, Any]) -> str:
            return f"Check {name} of {repository} at {sha} is {conclusion}: {item.get('html_url') or ''}".rstrip(": ")

        async def find() -> str | None:
            runs, _ = await self._all(repo(repository, "commits", sha, "check-runs"), under="check_runs", check_name=name, filter="all")
            return next((said(item) for item in runs if item.get("external_id") == context.key), None)

        request = {
            "name": name,
            "head_sha": sha,
            "status": "completed",
            "conclusion": conclusion,
            "external_id": context.key,
            "output": {"title": title, "summary": summary},
        }
        return self._write(repository, "POST", repo(repository, "check-runs"), request, said, find)
