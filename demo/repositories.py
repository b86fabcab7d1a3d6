"""Two small but real repositories with a history: a library, and its documentation, which lags behind."""

from pathlib import Path

from prefect_routines.testing import ForgeRepository, LocalForge

LIBRARY = '''\
"""Turn text into slugs: short names that fit into a URL."""

import re
import unicodedata


def slugify(text: str) -> str:
    """The text in lower case, words joined by dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
'''

LIBRARY_NOW = '''\
"""Turn text into slugs: short names that fit into a URL."""

import re
import unicodedata


def slugify(text: str, separator: str = "-", max_length: int | None = None) -> str:
    """The text in lower case, words joined by `separator`, cut after a whole word to `max_length` characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower())
    while max_length is not None and len(words) > 1 and len(separator.join(words)) > max_length:
        words.pop()
    return separator.join(words)[:max_length]


def unslugify(slug: str, separator: str = "-") -> str:
    """A slug as a title: the words, capitalised."""
    return " ".join(word.capitalize() for word in slug.split(separator))
'''

CHECK = '''\
"""Check the documentation: every link leads somewhere, every page is listed, every example gives what it says."""

import doctest
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sdk"))
pages = sorted(Path("pages").glob("*.md"))
index = Path("README.md").read_text()
problems = []
for page in [Path("README.md"), *pages]:
    for target in re.findall(r"\\]\\(([^)#]+)", page.read_text()):
        if "://" not in target and not (page.parent / target).exists():
            problems.append(f"{page}: the link to {target} leads nowhere")
    if page in pages and f"pages/{page.name}" not in index:
        problems.append(f"{page}: README.md does not list it")
    failed, _ = doctest.testfile(str(page.resolve()), module_relative=False)
    if failed:
        problems.append(f"{page}: {failed} examples do not give what the page says")
print("\\n".join(problems) or f"{len(pages) + 1} pages are in order")
sys.exit(bool(problems))
'''

SLUGIFY_PAGE = """\
# slugify

Turns a text into a slug.

    >>> from slugs import slugify
    >>> slugify("Grusse aus Koln!")
    'grusse-aus-koln'

It takes one argument, the text. Words are joined by dashes.
"""

DOCS_README = """\
# Documentation of slugs

- [slugify](pages/slugify.md) turns a text into a slug.

`python3 check.py` checks every link and every example.
"""

GUIDELINES = """\
# Working on this documentation

One page per function, listed in README.md. Every page has an example that `python3 check.py` can run.
"""


def make_repositories(directory: Path) -> tuple[LocalForge, ForgeRepository, ForgeRepository]:
    """The forge, the library and its documentation."""
    forge = LocalForge(directory)
    sdk = forge.repository("sdk")
    sdk.commit({"slugs.py": LIBRARY, "README.md": "# slugs\n\nText into slugs.\n"}, "Start: slugify (#3)")
    docs = forge.repository("docs")
    pages = {"README.md": DOCS_README, "CLAUDE.md": GUIDELINES, "check.py": CHECK, "pages/slugify.md": SLUGIFY_PAGE}
    docs.commit(pages, "Describe slugify")
    separator = LIBRARY_NOW.partition("\n\n\ndef unslugify")[0] + "\n"
    sdk.commit({"slugs.py": separator}, "slugify: add separator and max_length (#12)")
    sdk.commit({"slugs.py": LIBRARY_NOW}, "Add unslugify, the way back (#15)")
    return forge, sdk, docs
