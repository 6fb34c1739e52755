"""Data sets: one declaration each, and the readers that turn their files into `studies` rows."""
