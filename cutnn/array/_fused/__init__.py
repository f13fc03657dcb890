"""Behind `cutnn.array.fused`: expressions as graphs, and what runs a graph on each library.

`graph` holds the nodes, which answer the operators and functions of arrays; `derive` traces a function and its
gradient into graphs; `on_numpy`, `on_numba` and `on_cuda` each make one kernel of a graph.
"""
