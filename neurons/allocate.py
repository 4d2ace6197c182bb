"""Fill disks for a miner: `python neurons/allocate.py --help`. Also installed as `tensorage allocate`."""

import sys

from tensorage.allocate import main

if __name__ == "__main__":
    sys.exit(main())
