"""Which hosts a sandbox may reach: the entries of the setting `network`, and what is asked of each request."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from prefect_routines.errors import SettingsError

PRESETS: dict[str, tuple[str, ...]] = {
    "@python": ("pypi.org", "files.pythonhosted.org"),
    "@node": ("registry.npmjs.org", "registry.yarnpkg.com", "nodejs.org"),
    "@rust": ("crates.io", "index.crates.io", "static.crates.io", "static.rust-lang.org"),
    "@go": ("proxy.golang.org", "sum.golang.org", "go.dev", "dl.google.com"),
    "@ruby": ("rubygems.org", "index.rubygems.org"),
    "@java": ("repo.maven.apache.org", "repo1.maven.org", "plugins.gradle.org", "services.gradle.org"),
    "@debian": ("deb.debian.org", "security.debian.org"),
    "@ubuntu": ("archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com"),
    "@github": (
        "github.com",
        "api.github.com",
        "codeload.github.com",
        "raw.githubusercontent.com",
        "objects.githubusercontent.com",
        "release-assets.githubusercontent.com",
    ),
    "@gitlab": ("gitlab.com",),
    "@bitbucket": ("bitbucket.org", "api.bitbucket.org"),
}
"""Package registries and forges. Whoever may reach a forge can also send there: leave it out where that matters."""

PORTS = frozenset({80, 443})
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("2002::/16"))
"""IPv6 that carries an IPv4 address (NAT64, 6to4): what it leads to cannot be told from its own look."""


def canonical(host: str) -> str | None:
    """A host name in the one form that is compared: lower case, IDNA, no dot at the end. None if it is no name, an IP address say."""
    host = host.strip().rstrip(".").lower()
    try:
        host = host.encode("idna").decode("ascii") if not host.isascii() else host
    except UnicodeError:
        return None
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    # What the resolver would read as an IPv4 address in one of its old forms: 127.1, 2130706433, 0x7f.1
    return None if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]) else host


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet, and not to this machine or its network."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if isinstance(found, ipaddress.IPv6Address) and any(found in network for network in _TRANSLATED):
        return False
    return found.is_global and not found.is_multicast


class AllowList:
    """The hosts of a `network` setting.

    Args:
        entries: Host names ("docs.python.org"), suffixes ("*.example.org": each name below it, not itself), presets ("@python").

    Raises:
        SettingsError: an entry is none of these.

    Example:
        ```python
        AllowList(["@python", "*.example.org"]).refusal("docs.example.org", 443)  # None: it may pass
        ```
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: set[str] = set()
        for entry in entries:
            if entry.startswith("@"):
                if entry not in PRESETS:
                    raise SettingsError(f"network: there is no preset {entry!r}; there are {', '.join(sorted(PRESETS))}")
                self._names.update(PRESETS[entry])
                continue
            name = canonical(entry.removeprefix("*."))
            if name is None or (entry.startswith("*.") and "." not in name):
                raise SettingsError(
                    f"network: {entry!r} is no host name, '*.suffix' of at least two parts, or preset; leave out scheme, port, path"
                )
            (self._suffixes if entry.startswith("*.") else self._names).add(name)

    def refusal(self, host: str, port: int) -> str | None:
        """Why a connection may not be made, or None if it may (to a public address)."""
        name = canonical(host)
        if name is None:
            return f"{host[:100]!r} is no host name; IP addresses are never allowed"
        if port not in PORTS:
            return f"port {port} is not allowed; only {', '.join(map(str, sorted(PORTS)))}"
        if name in self._names or any(name.endswith(f".{suffix}") for suffix in self._suffixes):
            return None
        return f"{name} is not on the list; to allow it, add {name!r} to the routine's setting `network`"
