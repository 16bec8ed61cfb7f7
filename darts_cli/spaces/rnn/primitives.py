"""Operations of recurrent cells: functions of tensors, without torch to read genotypes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from darts_cli.space import NO_OPERATION, SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

# In the order of the published alphas' columns, after `none`; a new one goes last. Those with a
# derivative in `kernels/mixed_node.py` are searched by hand-written gradients.
ACTIVATIONS: dict[str, Callable[["Tensor"], "Tensor"]] = {
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(),
    "identity": lambda x: x,
}

# Section 3.1.2 and appendix A.1.2: one input, eight nodes, one edge into each after derivation.
RNN = SearchSpace(
    name="rnn",
    cells=("recurrent",),
    inputs=1,
    nodes=8,
    edges_per_node=1,
    primitives=(NO_OPERATION, *ACTIVATIONS),
    skip="identity",
    fixed_edges=1,
)
