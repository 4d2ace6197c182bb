#!/bin/sh
# Register a miner's or validator's hotkey on the subnet. Flags: scripts/register_hotkey.sh --help
#   scripts/register_hotkey.sh --netuid 7 --wallet.name miner --axon.external_ip 203.0.113.7
set -eu
here=$(dirname -- "$0")
python=${PYTHON:-$here/../.venv/bin/python}
[ -x "$(command -v -- "$python")" ] || python=python3
exec "$python" "$here/register.py" hotkey "$@"
