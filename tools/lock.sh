#!/usr/bin/env bash
# Pins names, versions and hashes of all dependencies: requirements.lock to run, requirements-dev.lock to work on the project.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
"${PYTHON:-python3}" -m venv "$tool"
"$tool/bin/python" -m pip install --quiet pip-tools
pin() {
  "$tool/bin/pip-compile" --quiet --strip-extras --generate-hashes --allow-unsafe --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@" pyproject.toml
}
pin --output-file requirements.lock
pin --extra dev --output-file requirements-dev.lock
