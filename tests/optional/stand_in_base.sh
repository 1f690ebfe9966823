#!/bin/sh
# Make a stand-in for python:3.11-slim where no base image can be pulled: a minimal Debian 12 with its
# own Python 3.11, and pip's settings and certificates of this machine, so that builds install from
# the same index. Not what a release is built on: its Python is older, and it is larger.
#
#   apt-get install mmdebstrap    (as root)
#   tests/optional/stand_in_base.sh | docker import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' - python-stand-in
#   make image BASE=python-stand-in BUILD_FLAGS='--network host'
set -eu
exec mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
  --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
  --customize-hook='cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"' \
  --customize-hook='[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/"' \
  bookworm -
