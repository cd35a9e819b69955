"""Teachers as Ray Data actors: candidates, cross-scores, the weak-label table, and what is computed from it."""
