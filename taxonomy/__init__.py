"""The targets a phrase can name: their names, parents, synonyms and what can ground them."""
