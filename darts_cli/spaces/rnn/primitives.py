"""Operations of recurrent cells, by name: `operations.py` holds the functions.

Names alone, so that genotypes are checked without importing torch.
"""

from darts_cli.space import NO_OPERATION, SearchSpace

# Section 3.1.2 and appendix A.1.2: one input, eight nodes, one edge into each after derivation.
RNN = SearchSpace(
    name="rnn",
    cells=("recurrent",),
    inputs=1,
    nodes=8,
    edges_per_node=1,
    # In the order of the published alphas' columns.
    primitives=(NO_OPERATION, "tanh", "relu", "sigmoid", "identity"),
    skip="identity",
    fixed_edges=1,
)
