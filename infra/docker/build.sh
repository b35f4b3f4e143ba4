#!/bin/sh
# Builds a target of the Dockerfile with the container engine that is here:
#
#   infra/docker/build.sh cpu|gpu IMAGE
#
# PIP_EXTRA_INDEX_URL: where pip looks besides its default index; for cpu PyTorch's own index of CPU
# builds unless it is set. PYTHON_IMAGE: another base. BUILD_FLAGS: more options for the engine.
set -eu

target=$1
image=$2
cd "$(dirname "$0")/../.."

if docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
    engine=docker
elif command -v buildah >/dev/null; then
    engine=buildah
else
    echo "no container engine: start Docker's daemon or install buildah" >&2
    exit 1
fi

case $target in
cpu) torch=cpu index=${PIP_EXTRA_INDEX_URL-https://download.pytorch.org/whl/cpu} ;;
gpu) torch=cuda index=${PIP_EXTRA_INDEX_URL-} ;;
*)
    echo "no target $target: cpu or gpu" >&2
    exit 1
    ;;
esac

set -- --file infra/docker/Dockerfile --target "$target" --tag "$image" \
    --build-arg "TORCH_BUILD=$torch" --build-arg "PIP_EXTRA_INDEX_URL=$index" \
    --build-arg "IMAGE_COMMIT=$(git describe --always --dirty --abbrev=40 --exclude '*')"
[ -z "${PYTHON_IMAGE-}" ] || set -- "$@" --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"
# buildah keeps layers only if it is told to
[ "$engine" = docker ] || set -- --layers "$@"
# shellcheck disable=SC2086 # options are words
"$engine" build "$@" ${BUILD_FLAGS-} .
"$engine" images "$image"
