"""The response cache: a request that a model has answered is not sent again."""
