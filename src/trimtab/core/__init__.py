"""The nouns and their laws: ids, digests, metrics with direction, declarations, errors, clocks."""
