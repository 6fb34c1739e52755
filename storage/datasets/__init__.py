"""Readers that turn a dataset's own files into rows of the `studies` table."""
