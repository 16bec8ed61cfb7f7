"""Times evaluation word by word against the machine's memory: `make bench`.

With batch 1 every word reads all weights of the cell that act on a state, so
that no evaluation is faster than memory is. Prints what a read of plain memory
reaches and what evaluation does, interleaved in one run.
"""

import statistics
import time
from pathlib import Path

import torch

from darts_cli.engine.steps import evaluate
from darts_cli.genotype.file import parse
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES
from darts_cli.spaces.rnn.language_model import LanguageModel
from darts_cli.spaces.rnn.loader import EvaluationLoader
from darts_cli.spaces.rnn.task import TextTask, TextTrainingModule

ROUNDS = 7
WORDS = 1024
VOCABULARY = 10_000
GENOTYPE = Path(__file__).parents[2] / "genotypes" / "rnn_darts_v2.yaml"
# Far more than any cache holds.
MEMORY = 256 * 2**20


def make_module() -> TextTrainingModule:
    """The paper's network, width 850, with the weights that it starts from."""
    genotype = parse(GENOTYPE.read_text(), SPACES, GENOTYPE.name)
    info = {"vocabulary": [str(number) for number in range(VOCABULARY)]}
    return TextTask().build(RECIPES["train"]["rnn"]["ptb"], info, genotype)


def weights_of_a_word(network: LanguageModel) -> int:
    """Bytes that no word can do without: the words' half of the first product is done at once."""
    cell = network.cell
    numbers: int = cell.input_weight.numel() // 2 + sum(w.numel() for w in cell.node_weights)
    return numbers * cell.input_weight.element_size()


def main() -> None:
    """Time both in turn, and print the table."""
    module = make_module()
    loader = EvaluationLoader(torch.randint(VOCABULARY, (WORDS + 1,)), 1)
    memory = torch.ones(MEMORY // 4)
    device = torch.device("cpu")
    read, words = [], []
    for round_ in range(ROUNDS + 1):
        start = time.perf_counter()
        memory.sum()
        middle = time.perf_counter()
        evaluate(module, loader, {}, device)
        end = time.perf_counter()
        if round_:  # The first one warms up.
            read.append(MEMORY / (middle - start))
            words.append((end - middle) / WORDS)
    bandwidth, word = statistics.median(read), statistics.median(words)
    size = weights_of_a_word(module.network)
    print(f"memory, read           {bandwidth / 1e9:9.1f} GB/s")
    print(
        f"evaluation, batch 1    {1000 * word:9.2f} ms a word, {size / 1e6:.1f} MB of weights each"
    )
    print(f"time to memory's bound {word * bandwidth / size:9.2f} x")


if __name__ == "__main__":
    main()
