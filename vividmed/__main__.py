"""The `vividmed` command: `python -m vividmed` is the same."""

import sys

_INTERRUPTED = 130
"""The exit code that shells give to a command that was stopped with Ctrl-C."""


def main() -> None:
    """Run the command; Ctrl-C ends it without a trace, also while its modules are imported."""
    try:
        from flows.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
