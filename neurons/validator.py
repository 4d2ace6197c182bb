"""Run a validator: `python neurons/validator.py --help`. Installed, it is `tensorage validator`."""

import sys

if __name__ == "__main__":
    # Imported here, so that the worker processes, which import this file too, stay small.
    from tensorage.validator.command import main

    sys.exit(main())
