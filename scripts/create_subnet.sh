#!/bin/sh
# Create a subnet and start it. Flags: scripts/create_subnet.sh --help
#   scripts/create_subnet.sh --wallet.name owner --subtensor.network test
set -eu
here=$(dirname -- "$0")
python=${PYTHON:-$here/../.venv/bin/python}
[ -x "$(command -v -- "$python")" ] || python=python3
exec "$python" "$here/register.py" subnet "$@"
