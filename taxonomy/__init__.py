"""The vocabulary of targets: loading, checking, matching, versions."""

from taxonomy.matcher import Match, Matcher
from taxonomy.targets import Target, Taxonomy, TaxonomyError, load_taxonomy

__all__ = ["Match", "Matcher", "Target", "Taxonomy", "TaxonomyError", "load_taxonomy"]
