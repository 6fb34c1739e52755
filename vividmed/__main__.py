"""The `vividmed` command: `python -m vividmed` is the same."""

from flows.cli.main import main

if __name__ == "__main__":
    main()
