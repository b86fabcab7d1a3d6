"""What the scripted model of the demonstration says. A real Claude would find its own words; the tools it calls here are real."""

from prefect_routines.testing import call, say

SLUGIFY = """\
# slugify

Turns a text into a slug.

    >>> from slugs import slugify
    >>> slugify("Grusse aus Koln!")
    'grusse-aus-koln'

Words are joined by dashes, or by what `separator` says:

    >>> slugify("Grusse aus Koln!", separator="_")
    'grusse_aus_koln'

`max_length` cuts it after a whole word:

    >>> slugify("Grusse aus Koln!", max_length=12)
    'grusse-aus'

The way back is [unslugify](unslugfy.md).
"""

UNSLUGIFY = """\
# unslugify

Turns a slug into a title.

    >>> from slugs import unslugify
    >>> unslugify("grusse-aus-koln")
    'Grusse Aus Koln'

A slug that was made with another `separator` needs the same one here. See [slugify](slugify.md).
"""

SCRIPT = [
    say(
        "I look at what was merged to the library, and at what the documentation says today.",
        call("bash", command="git -C sdk log --reverse --format='%h %s'"),
        call("bash", command="git -C sdk diff --stat HEAD~2"),
        call("read_guidelines", repository="docs"),
        call("glob", pattern="**/*.md", path="/workspace/docs"),
    ),
    say(
        "Two changes since the documentation was written. I read the code and the pages they touch.",
        call("read", path="sdk/slugs.py"),
        call("read", path="docs/pages/slugify.md"),
        call("grep", pattern="slugify", path="/workspace/docs", output_mode="content"),
    ),
    say(
        "`slugify` has two new arguments, and `unslugify` is new and has no page. I write both.",
        call("write", path="docs/pages/slugify.md", content=SLUGIFY),
        call("write", path="docs/pages/unslugify.md", content=UNSLUGIFY),
        call(
            "edit",
            path="docs/README.md",
            old_string="turns a text into a slug.\n",
            new_string="turns a text into a slug.\n- [unslugify](pages/unslugify.md) turns a slug into a title.\n",
        ),
    ),
    say(
        "I commit and push.",
        call(
            "bash",
            command="cd docs && git add -A && git commit -q -m 'Follow slugs: separator, max_length, unslugify' "
            "-m 'Follows sdk #12 (separator and max_length) and #15 (unslugify).' && git show --stat --format='%h %s'",
        ),
        call("push", repository="docs"),
    ),
    say(
        "The check found a link that I misspelt. I mend it and run the check myself first.",
        call(
            "bash",
            command="sed -i 's/unslugfy/unslugify/' pages/slugify.md && python3 check.py && git commit -qam 'Mend a link'",
        ),
    ),
    say(call("push", repository="docs")),
    say(
        call(
            "report",
            verdict="done",
            summary="The documentation follows the library again: separator and max_length are explained, and unslugify has a page.",
            evidence=["python3 check.py passes: every link, every listed page, every example"],
        )
    ),
]
