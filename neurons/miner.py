"""Run a miner: `python neurons/miner.py --help`. The same command is installed as `tensorage miner`."""

import sys

from tensorage.miner.command import main

if __name__ == "__main__":
    sys.exit(main())
