"""The `vividmed` command."""
