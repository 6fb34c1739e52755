"""The response cache: what a model has answered is not asked again."""
