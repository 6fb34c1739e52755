"""The prompts, as Markdown, and the conversations made of them."""
