"""One module a paper; papers never import each other."""
