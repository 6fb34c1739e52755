"""The three text steps by a large language model, with far fewer tokens than in the paper."""
