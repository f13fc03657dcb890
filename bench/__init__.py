"""Benchmarks of cutnn against its peers: `python -m bench`, see README.md."""
