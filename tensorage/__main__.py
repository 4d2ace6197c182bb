"""`python -m tensorage` is the `tensorage` command."""

from .cli import main

if __name__ == "__main__":
    main()
