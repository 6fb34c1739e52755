"""The pipeline: its stages, their settings, how a stage runs on a shard."""
