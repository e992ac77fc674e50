#!/bin/sh
# Builds the image as root on Debian, without a Docker engine and without an image registry. This is for machines that
# reach only package registries. It needs: apt-get install buildah crun mmdebstrap
#
#   deploy/build-without-docker.sh [image]
#   python -m tests.deploy.try_image [image]     # then runs the image against the sandbox
#
# The base image python:3.11-slim-bookworm is not pulled. An image with Debian's own Python 3.11 gets this name.
# pip uses this machine's settings and certificates during the build only; neither is in the image.
set -eu

image=${1:-ai-task-processor}
base=python:3.11-slim-bookworm
root=$(dirname "$(dirname "$(readlink -f "$0")")")
certificates=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image "localhost/$base" >/dev/null 2>&1; then
    # Besides Python, the official image has certificates, timezones and netbase's service names, so include them.
    mmdebstrap --variant=minbase --include=ca-certificates,netbase,python3,python3-venv,tzdata \
        bookworm "$scratch/base.tar" /etc/apt/sources.list.d/debian.sources
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$scratch/base.tar" /
    buildah commit --quiet --rm "$container" "localhost/$base"
fi

# Copy this machine's pip settings. [install] takes precedence over [global], so pip uses the certificates at the path
# where the build mounts them.
cat /etc/pip.conf >"$scratch/pip.conf" 2>/dev/null || :
printf '\n[install]\ncert = /run/secrets/ca.crt\n' >>"$scratch/pip.conf"

buildah bud --pull=never --format docker --build-arg "BASE=localhost/$base" \
    --secret "id=pip.conf,src=$scratch/pip.conf" --secret "id=ca.crt,src=$certificates" \
    --tag "$image" "$root"
buildah images "$image"
