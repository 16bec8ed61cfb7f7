"""The language model against golden outputs and search steps, exact sizes, and its dropouts."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from darts_cli.config import AlphasConfig, RecurrentNetworkConfig
from darts_cli.engine.architect import Architect
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State
from darts_cli.engine.steps import search_step, train_step
from darts_cli.engine.task import Batch
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES
from darts_cli.spaces.rnn.cells import DiscreteCell, SearchCell, multiply
from darts_cli.spaces.rnn.language_model import LanguageModel, TextOutput
from darts_cli.spaces.rnn.primitives import ACTIVATIONS, RNN
from darts_cli.spaces.rnn.task import TextTrainingModule
from tests.spaces.recorded import assert_golden, read, starting_with

pytestmark = pytest.mark.usefixtures("double_precision")

GENOTYPES = {"DARTS_V1": "rnn_darts_v1", "DARTS_V2": "rnn_darts_v2", "ENAS": "rnn_enas"}
NO_DROPOUT = {
    f"dropout_{name}": 0.0 for name in ("output", "hidden", "input", "embedding", "words")
}


def make_search(width: int = 6, words: int = 11, **dropouts: float) -> LanguageModel:
    config = RecurrentNetworkConfig(width=width, **(NO_DROPOUT | dropouts))
    return LanguageModel(config, SearchCell(RNN, width), words)


def log_probabilities(model: LanguageModel, output: TextOutput) -> Tensor:
    """Of all words, `[T, B, V]`: what the loss adds up, at the targets, is theirs."""
    dropped = output.dropped
    return F.linear(dropped, model.encoder.weight, model.decoder_bias).log_softmax(-1)


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_a_discrete_model_equals_the_golden_one(genotype: str) -> None:
    tensors, info = read(f"rnn_{genotype}")
    width, words = int(info["nhid"]), int(info["vocab"])
    cell = DiscreteCell(load(GENOTYPES[genotype], SPACES), width)
    model = LanguageModel(RecurrentNetworkConfig(width=width), cell, words)
    model.load_state_dict(model.from_reference_names(starting_with(tensors, "state.")))
    targets = torch.randint(words, tensors["input"].shape)
    output = model.eval()(tensors["input"], targets, tensors["hidden"][0], {})
    assert_golden(log_probabilities(model, output), tensors["log_prob"])
    expected = -tensors["log_prob"].gather(-1, targets[..., None]).sum()
    assert_golden(output.nll_sum, expected)
    assert output.hidden is not None
    assert_golden(output.hidden, tensors["hidden_next"][0])


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [7, 12])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_product_is_the_same_on_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int, width: int, rows: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    state, weight = torch.randn(rows, width), torch.randn(width, 5)
    assert torch.allclose(multiply(state, weight), state @ weight, rtol=1e-12)


@pytest.mark.parametrize(("rows", "parts"), [(1, 6), (2, None)])
def test_a_single_row_is_shared_out_among_threads(
    monkeypatch: pytest.MonkeyPatch, rows: int, parts: int | None
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    shapes: list[int] = []
    bmm = torch.bmm

    def note(rows: Tensor, weights: Tensor) -> Tensor:
        shapes.append(len(rows))
        return bmm(rows, weights)

    monkeypatch.setattr(torch, "bmm", note)
    multiply(torch.randn(rows, 12), torch.randn(12, 5))
    assert shapes == ([] if parts is None else [parts])


class GoldenSearch:
    """A recorded search of three steps, and ours made ready to follow it."""

    def __init__(self, order: str) -> None:
        self.tensors, info = read(f"rnn_search_{order}")
        width, words = int(info["nhid"]), int(info["vocab"])
        config = RecurrentNetworkConfig(
            width=width,
            slowness=float(info["beta"]),
            **NO_DROPOUT,
        )
        self.network = LanguageModel(config, SearchCell(RNN, width), words)
        self.network.load_state_dict(
            self.network.from_reference_names(starting_with(self.tensors, "state."))
        )
        self.module = TextTrainingModule(self.network)
        self.clip = float(info["clip"])
        self.architect = Architect(
            {"recurrent": self.tensors["alphas"].clone()},
            AlphasConfig(
                lr=float(info["arch_lr"]),
                betas=(0.9, 0.999),
                order="first" if order == "first" else "second",
                virtual_clip=self.clip,
            ),
        )
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=float(info["lr"]), weight_decay=float(info["wdecay"])
        )

    def batch(self, step: int, split: str) -> Batch:
        inputs, targets, hidden = (
            self.tensors[f"step{step}.{split}.{name}"] for name in ("input", "target", "hidden")
        )
        return Batch(inputs, targets, hidden=hidden[0], carries_hidden=True)

    def loss(self, step: int, split: str) -> Tensor:
        batch = self.batch(step, split)
        return self.module.loss(self.module.forward(batch, self.architect.mixture()), batch)


@pytest.mark.parametrize("order", ["first", "second"])
def test_three_search_steps_with_carried_states_equal_the_golden_ones(order: str) -> None:
    golden = GoldenSearch(order)
    for step in range(3):
        (gradient,) = golden.architect.step(
            train_losses=[lambda step=step: golden.loss(step, "train")],  # type: ignore[misc]
            valid_losses=[lambda step=step: golden.loss(step, "valid")],  # type: ignore[misc]
            optimizer=golden.optimizer,
            state=list(golden.network.buffers()),
        )
        assert_golden(gradient, golden.tensors[f"step{step}.grad_alphas"])
        assert_golden(
            golden.architect.alphas["recurrent"], golden.tensors[f"step{step}.alphas_after"]
        )
        batch = golden.batch(step, "train")
        output = golden.module.forward(batch, golden.architect.mixture())
        found = log_probabilities(golden.network, output)
        assert_golden(found, golden.tensors[f"step{step}.log_prob"])
        assert_golden(golden.module.loss(output, batch), golden.tensors[f"step{step}.raw_loss"])
        training_loss = golden.module.training_loss(output, batch)
        assert_golden(training_loss, golden.tensors[f"step{step}.loss"])
        golden.optimizer.zero_grad()
        training_loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(golden.network.parameters(), golden.clip)
        assert_golden(norm, golden.tensors[f"step{step}.grad_norm"])
        golden.optimizer.step()
        golden.architect.optimizer.zero_grad()
        if step < 2:
            carried = golden.tensors[f"step{step + 1}.train.hidden"][0]
            assert output.hidden is not None
            assert_golden(output.hidden, carried)
    expected = starting_with(golden.tensors, "final.")
    for name, tensor in golden.network.to_reference_names(golden.network.state_dict()).items():
        # Statistics are left out: the recording moved them in virtual passes too.
        if "running_" not in name and "num_batches_tracked" not in name:
            assert_golden(tensor, expected[name])


@pytest.mark.parametrize("order", ["first", "second"])
def test_the_engine_carries_states_and_alphas_as_recorded(order: str) -> None:
    golden = GoldenSearch(order)
    state = State(
        module=golden.module,
        optimizer=golden.optimizer,
        architect=golden.architect,
        meter=Meter(golden.module.metric_names, torch.device("cpu")),
    )
    config = RECIPES["search"]["rnn"]["ptb"]
    config = replace(config, weights=replace(config.weights, clip=golden.clip))
    golden.network.train()
    for step in range(3):
        # Only the first is given its state: the engine carries those of the others.
        train, valid = (
            replace(golden.batch(step, split), carries_hidden=step > 0)
            for split in ("train", "valid")
        )
        if step:
            train, valid = replace(train, hidden=None), replace(valid, hidden=None)
        search_step(state, train, valid, config.seed)
        train_step(state, train, config)
        assert_golden(
            golden.architect.alphas["recurrent"], golden.tensors[f"step{step}.alphas_after"]
        )
        if step < 2:
            for name, split in (("weights", "train"), ("alphas", "valid")):
                recorded = golden.tensors[f"step{step + 1}.{split}.hidden"][0]
                assert_golden(state.hidden[name], recorded)
        state.position.step += 1
    expected = starting_with(golden.tensors, "final.")
    for name, tensor in golden.network.to_reference_names(golden.network.state_dict()).items():
        if "running_" not in name and "num_batches_tracked" not in name:
            assert_golden(tensor, expected[name])


@pytest.mark.parametrize(
    ("genotype", "words", "width", "parameters"),
    [
        ("rnn_darts_v1", 10_000, 850, 22_960_000),
        ("rnn_darts_v2", 10_000, 850, 22_960_000),
        ("rnn_enas", 10_000, 850, 27_295_000),
        ("rnn_darts_v2", 33_278, 700, 33_127_878),
        ("rnn_enas", 33_278, 700, 36_067_878),
        (None, 10_000, 300, 4_810_000),
    ],
)
def test_models_have_their_published_sizes(
    genotype: str | None, words: int, width: int, parameters: int
) -> None:
    with torch.device("meta"):
        cell = (
            SearchCell(RNN, width)
            if genotype is None
            else DiscreteCell(load(genotype, SPACES), width)
        )
        model = LanguageModel(RecurrentNetworkConfig(width=width), cell, words)
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_a_search_has_180_alphas() -> None:
    assert len(RNN.edges) * len(RNN.primitives) == 180


def test_every_primitive_but_none_has_a_function() -> None:
    assert tuple(ACTIVATIONS) == RNN.primitives[1:]


def plain_search_cell(
    model: LanguageModel, words: Tensor, hidden: Tensor, alphas: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and last state straight from the formulas, edge by edge and operation
    by operation.
    """
    cell = model.cell
    shares = iter(alphas.softmax(-1))
    rows = [[next(shares) for _ in range(node + 1)] for node in range(8)]

    def norm(state: Tensor) -> Tensor:
        return F.batch_norm(state, None, None, training=True)

    outputs = []
    for word in F.embedding(words, model.encoder.weight):
        both = torch.cat([word, hidden], dim=-1) @ cell.input_weight
        gate, candidate = both.chunk(2, -1)
        states = [norm(hidden + gate.sigmoid() * (candidate.tanh() - hidden))]
        for node in range(8):
            total = torch.zeros_like(hidden)
            for source, share in enumerate(rows[node]):
                state = states[source]
                gate, candidate = (state @ cell.node_weights[node]).chunk(2, -1)
                for column, name in enumerate(RNN.primitives[1:], start=1):
                    step = gate.sigmoid() * (ACTIVATIONS[name](candidate) - state)
                    total = total + share[column] * (state + step)
            states.append(norm(total))
        hidden = torch.stack(states[1:]).mean(0)
        outputs.append(hidden)
    logits = F.linear(torch.stack(outputs), model.encoder.weight, model.decoder_bias)
    return logits.log_softmax(-1), hidden


def test_the_search_cell_is_the_sum_over_edges_and_operations() -> None:
    torch.manual_seed(0)
    model = make_search()
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    words, hidden, alphas = torch.randint(11, (4, 5)), torch.randn(5, 6), torch.randn(36, 5)
    output = model(words, words, hidden, {"recurrent": alphas.softmax(-1)})
    expected, last = plain_search_cell(model, words, hidden, alphas)
    found = log_probabilities(model, output)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    total = F.nll_loss(expected.flatten(0, 1), words.flatten(), reduction="sum")
    torch.testing.assert_close(output.nll_sum, total, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(output.hidden, last, rtol=1e-10, atol=1e-10)


def test_reading_in_two_parts_with_the_state_carried_is_reading_at_once() -> None:
    torch.manual_seed(0)
    cell = DiscreteCell(load("rnn_enas", SPACES), 6)
    model = LanguageModel(RecurrentNetworkConfig(width=6), cell, 11).eval()
    words = torch.randint(11, (7, 3))
    whole = model(words, words, None, {})
    first = model(words[:4], words[:4], None, {})
    second = model(words[4:], words[4:], first.hidden, {})
    states = torch.cat([first.states, second.states])
    torch.testing.assert_close(states, whole.states)
    torch.testing.assert_close(first.nll_sum + second.nll_sum, whole.nll_sum)
    torch.testing.assert_close(second.hidden, whole.hidden)


def test_dropout_of_words_zeroes_whole_words_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    config = RecurrentNetworkConfig(width=3, **(NO_DROPOUT | {"dropout_words": 0.4}))
    model = LanguageModel(config, SearchCell(RNN, 3), 5000)
    words = torch.arange(5000).repeat(2, 1).t()
    ratio = model._embed(words) / F.embedding(words, model.encoder.weight)
    # A word is dropped everywhere or nowhere.
    assert torch.equal(ratio[:, 0], ratio[:, 1])
    kept = ratio[:, 0, 0]
    assert torch.all((kept == 0) | ((kept - 1 / 0.6).abs() < 1e-9))
    assert (kept != 0).double().mean().item() == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("name", ["output", "hidden", "input", "embedding"])
def test_masks_are_the_same_at_every_word_and_off_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    model = make_search(40, 11, **{f"dropout_{name}": 0.5})
    states = torch.ones(6, 3, 40)
    dropped = model._drop(states, 0.5)
    assert all(torch.equal(step, dropped[0]) for step in dropped)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    words, mixture = torch.randint(11, (4, 3)), {"recurrent": torch.full((36, 5), 0.2)}
    one, other = (model(words, words, None, mixture).nll_sum for _ in range(2))
    assert not torch.equal(one, other)
    model.eval()
    one, other = (model(words, words, None, mixture).nll_sum for _ in range(2))
    assert torch.equal(one, other)


def test_the_published_layout_round_trips_and_a_tied_decoder_is_one_tensor() -> None:
    model = make_search()
    own = model.state_dict()
    published = model.to_reference_names(own)
    assert "decoder.weight" not in published
    assert {"encoder.weight", "decoder.bias", "rnns.0._W0", "rnns.0._Ws.7"} <= published.keys()
    assert published["rnns.0.bn.running_mean"].shape == (6,)
    tied = published | {"decoder.weight": published["encoder.weight"].clone()}
    back = model.from_reference_names(tied)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)
    with pytest.raises(CheckpointError, match=r"differs from encoder\.weight, expected a tied"):
        model.from_reference_names(published | {"decoder.weight": torch.zeros(11, 6)})
