"""Reading releases, workflow runs and their logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_routines.connectors.github.service import GitHubToolset, Number, Page, Repository, line, login_of, part, repo
from prefect_routines.errors import ToolError
from prefect_routines.tools.paging import SIZE
from prefect_routines.tools.tool import tool

NOTES = 2000  # characters of a release's notes in a list


class ActionReads(GitHubToolset):
    """What Claude may read of releases and workflows."""

    @tool(idempotent=True, outside=True)
    async def releases(self, repository: Repository, page: Page = 1) -> str:
        """List releases with their notes, newest first.

        Args:
            repository: 'owner/name'.
            page: Page of the list.
        """

        def shown(item: Mapping[str, Any]) -> dict[str, Any]:
            notes = item.get("body") or ""
            return {
                **{name: item.get(name) for name in ("tag_name", "name", "published_at", "target_commitish")},
                **{name: item.get(name) or None for name in ("draft", "prerelease")},
                "author": login_of(item.get("author")),
                "url": item.get("html_url"),
                "notes": notes if len(notes) <= NOTES else f"{notes[:NOTES]} [cut]",
            }

        return await self._listed(repo(repository, "releases"), shown, page)

    @tool(idempotent=True, outside=True)
    async def workflow_runs(
        self,
        repository: Repository,
        workflow: str | None = None,
        branch: str | None = None,
        event: str | None = None,
        status: str | None = None,
        head_sha: str | None = None,
        page: Page = 1,
    ) -> str:
        """List workflow runs, newest first.

        Args:
            repository: 'owner/name'.
            workflow: File name of the workflow, e.g. 'deploy.yml', or its id. Default: all.
            branch: Only those of this branch.
            event: Only those started by this event, e.g. 'push'.
            status: A status or a conclusion, e.g. 'in_progress', 'success', 'failure'.
            head_sha: Only those of this commit.
            page: Page of the list.
        """
        where = repo(repository, "actions", *(["workflows", part(workflow)] if workflow else []), "runs")
        given = {"branch": branch, "event": event, "status": status, "head_sha": head_sha}
        return await self._listed(where, run_line, page, under="workflow_runs", **given)

    @tool(idempotent=True, outside=True)
    async def workflow_logs(self, repository: Repository, run: Number, job: Number | None = None, offset: int = 0) -> str:
        """Show the jobs of a workflow run, and the end of one job's log.

        Args:
            repository: 'owner/name'.
            run: Id of the run.
            job: Id of the job. Default: the first one that failed.
            offset: How many characters at the log's end to leave out, to read what is before them.
        """
        jobs, _ = await self._all(repo(repository, "actions", "runs", str(run), "jobs"), under="jobs")
        failed = [item for item in jobs if item.get("conclusion") not in (None, "success", "skipped", "neutral")]
        shown = next((item for item in jobs if item["id"] == job), None) if job else next(iter(failed), None)
        if job and shown is None:
            raise ToolError(f"run {run} has no job {job}; it has {', '.join(str(item['id']) for item in jobs) or 'none'}")
        lines = [line(job_line(item)) for item in jobs] or ["no jobs"]
        if shown is None:
            return "\n".join([*lines, "[no job failed; name one to see its log]"])
        answer = await self._api.get(repo(repository, "actions", "jobs", str(shown["id"]), "logs"))
        return "\n".join([*lines, f"log of job {shown['id']}:", tail(answer.text, offset)])


def run_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow run in a list."""
    names = ("id", "name", "display_title", "event", "status", "conclusion", "head_branch", "head_sha", "run_attempt", "created_at")
    return {**{name: item.get(name) for name in names}, "actor": login_of(item.get("actor")), "url": item.get("html_url")}


def job_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A job of a run, with the steps that failed."""
    steps = [step["name"] for step in item.get("steps") or [] if step.get("conclusion") == "failure"]
    return {"job": item["id"], **{name: item.get(name) for name in ("name", "status", "conclusion")}, "failed_steps": steps}


def tail(text: str, offset: int, size: int = SIZE) -> str:
    """The end of a text, or what is before the last `offset` characters.

    Raises:
        ToolError: The text is not that long.

    Example:
        >>> tail("abcdef", 0, 4)
        '[2 earlier characters; read them with offset=4]\\ncdef'
    """
    if not 0 <= offset <= len(text):
        raise ToolError(f"offset: between 0 and {len(text)}")
    end = len(text) - offset
    start = max(0, end - size)
    earlier = f"[{start} earlier characters; read them with offset={len(text) - start}]\n" if start else ""
    return earlier + text[start:end]
