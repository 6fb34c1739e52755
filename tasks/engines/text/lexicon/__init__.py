"""The embedded extractor: the taxonomy's words, and the grammar of reports around them."""

from tasks.engines.text.lexicon.extractor import LexiconExtractor

__all__ = ["LexiconExtractor"]
