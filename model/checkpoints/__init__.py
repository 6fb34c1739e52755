"""Published checkpoints: their layouts, checking and loading."""
