"""The benchmark cases; each module holds one, named CASE."""
