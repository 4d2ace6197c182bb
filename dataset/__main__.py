"""The dataset market: `python -m dataset --help`. The same command is installed as `tensorage dataset`."""

from tensorage.dataset.command import main

if __name__ == "__main__":
    main()
