#!/bin/sh
# Builds the image as root on Debian, without a Docker engine and without pulling from a registry of images: for machines
# that reach only the package registries. Needs: apt-get install buildah crun mmdebstrap
#
#   deploy/build-without-docker.sh [image]     then, for a true run against the sandbox: python -m tests.deploy.try_image [image]
#
# Where python:3.11-slim-bookworm would be pulled, Debian's own Python 3.11 takes its place under that name. pip gets
# this machine's settings and certificates for the build alone; neither is in the image.
set -eu

image=${1:-ai-task-processor}
base=python:3.11-slim-bookworm
root=$(dirname "$(dirname "$(readlink -f "$0")")")
certificates=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image "localhost/$base" >/dev/null 2>&1; then
    # As in the official image, beside Python: certificates, time zones, and netbase's names of services.
    mmdebstrap --variant=minbase --include=ca-certificates,netbase,python3,python3-venv,tzdata \
        bookworm "$scratch/base.tar" /etc/apt/sources.list.d/debian.sources
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$scratch/base.tar" /
    buildah commit --quiet --rm "$container" "localhost/$base"
fi

# The settings of pip on this machine; [install] wins over [global], so the certificates are found where the build has them.
cat /etc/pip.conf >"$scratch/pip.conf" 2>/dev/null || :
printf '\n[install]\ncert = /run/secrets/ca.crt\n' >>"$scratch/pip.conf"

buildah bud --pull=never --format docker --build-arg "BASE=localhost/$base" \
    --secret "id=pip.conf,src=$scratch/pip.conf" --secret "id=ca.crt,src=$certificates" \
    --tag "$image" "$root"
buildah images "$image"
