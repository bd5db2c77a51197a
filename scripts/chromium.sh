#!/bin/sh
# Prints the path of a Chromium for the browser tests: $CHROMIUM, or the first that is installed.
# Without one: installs Debian's when root, otherwise says what to install and fails. Tests never skip for want of a browser.
set -eu

find_chromium() {
    for name in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable chrome}; do
        if command -v "$name"; then return 0; fi
    done
    return 1
}

if find_chromium; then exit 0; fi
if [ -n "${CHROMIUM:-}" ]; then
    echo "CHROMIUM=$CHROMIUM cannot be run; give the path of a Chromium or Chrome, or unset it to look for one." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium for the browser tests" >&2
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends chromium >&2 && find_chromium; then
        exit 0
    fi
fi
echo "The browser tests need Chromium or Chrome. On Debian or Ubuntu: apt-get install chromium; elsewhere set CHROMIUM=/path/to/chrome" >&2
exit 1
