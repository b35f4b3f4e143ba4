#!/bin/sh
# Installs what the locks pin into the environment of a Python: locks/install.sh PYTHON [dev]
#
# cpu.lock where pip finds torch's CPU build (its own configuration says where it looks), cuda.lock
# elsewhere; TORCH_BUILD=cpu or =cuda ends where pip is offered the other build. Nothing is resolved,
# every file is held against its hash, and what was installed is checked before development tools
# join it.
set -eu

python=$1
tools=${2-}
cd "$(dirname "$0")"
# a working copy compiles what it imports; an image is read-only and gets all of it
[ -n "$tools" ] && compile=--no-compile || compile=--compile

pip() {
    "$python" -m pip --disable-pip-version-check "$@"
}

install() {
    pip install --quiet "$compile" --no-deps --require-hashes --requirement "$1"
}

version=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' cuda.lock)
offered=$(pip index versions torch 2>&1) || { echo "$offered" >&2; exit 1; }
case $offered in
*"$version+cpu"*) lock=cpu.lock ;;
*) lock=cuda.lock ;;
esac
if [ -n "${TORCH_BUILD-}" ] && [ "$TORCH_BUILD.lock" != "$lock" ]; then
    echo "TORCH_BUILD=$TORCH_BUILD, but pip is offered torch's build of $lock: PIP_EXTRA_INDEX_URL names another index" >&2
    exit 1
fi
if [ "$lock" = cpu.lock ]; then
    # by its full name: among files of both builds pip prefers the one whose hash an index states
    torch=$(mktemp)
    trap 'rm -f "$torch"' EXIT
    sed -n '/^torch==/,/[^\\]$/p' "$lock" | sed "s/^torch==$version/&+cpu/" > "$torch"
    install "$torch"
fi
install "$lock"
pip check
"$python" -c 'import torch; print("torch", torch.__version__)'

if [ -n "$tools" ]; then
    install "$tools.lock"
    pip check
fi
