#!/usr/bin/env bash
# Regenerates hexhail/api from proto/ with the pinned tools, or with --check says whether it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${PYTHON_BIN_DIR:-.venv/bin}

generate() {
  local out=$1
  PATH="$PWD/$bin:$PATH" "$bin/python" -m grpc_tools.protoc -I proto \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
    $(cd proto && find hexhail -name '*.proto' | sort)
  find "$out/hexhail/api" -name '*_pb2_grpc.py*' | grep -v service_pb2_grpc | xargs rm -f
  find "$out/hexhail/api" -type d -exec touch {}/__init__.py \;
}

if [[ ${1:-} == --check ]]; then
  fresh=$(mktemp -d)
  trap 'rm -rf "$fresh"' EXIT
  mkdir -p "$fresh/hexhail/api"
  generate "$fresh"
  if ! diff -r -q -x __pycache__ "$fresh/hexhail/api" hexhail/api; then
    echo "hexhail/api differs from what proto/ gives: run 'make stubs'" >&2
    exit 1
  fi
  echo "stubs are up to date"
else
  rm -rf hexhail/api
  mkdir -p hexhail/api
  generate .
fi
