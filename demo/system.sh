#!/bin/sh
# Install Debian packages as root; otherwise say which command does it, and stop.
set -eu
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing $* ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
else
    echo "error: $* is missing. Install it and try again: sudo apt-get install $*" >&2
    exit 1
fi
