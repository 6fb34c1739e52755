"""The embedded text engines: sentences, cleaning, lexicon, assertion."""
