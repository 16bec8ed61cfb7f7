"""Language modelling as the engine sees it."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from darts_cli.config import AlphasConfig, RecurrentNetworkConfig
from darts_cli.engine import steps
from darts_cli.engine.architect import Architect
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State
from darts_cli.engine.strategies import STRATEGIES
from darts_cli.engine.task import Batch
from darts_cli.genotype.file import load
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES
from darts_cli.spaces.rnn.cells import DiscreteCell, SearchCell
from darts_cli.spaces.rnn.language_model import LanguageModel, TextOutput
from darts_cli.spaces.rnn.loader import IGNORED
from darts_cli.spaces.rnn.primitives import RNN
from darts_cli.spaces.rnn.task import TextTask, TextTrainingModule

FACTS = {"name": "x", "vocabulary": [str(number) for number in range(11)]}


def make_module(**settings: float) -> TextTrainingModule:
    torch.manual_seed(0)
    cell = DiscreteCell(load("rnn_darts_v2", SPACES), 6)
    config = RecurrentNetworkConfig(width=6, **settings)
    return TextTrainingModule(LanguageModel(config, cell, 11))


def test_the_tally_sums_nats_over_the_words_that_are_predicted() -> None:
    words, targets = torch.randint(11, (4, 3)), torch.randint(11, (4, 3))
    targets[2:, 1] = IGNORED
    module, batch = make_module(), Batch(words, targets)
    module.network.eval()
    output = module.forward(batch, {})
    loss, count = module.metric_sums(output, batch).tolist()
    states = output.dropped
    network = module.network
    logs = F.linear(states, network.encoder.weight, network.decoder_bias).log_softmax(-1)
    expected = -sum(
        logs[t, b, targets[t, b]].item() for t in range(4) for b in range(3) if targets[t, b] >= 0
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert count == 10
    assert module.loss(output, batch).item() == pytest.approx(expected / 10, rel=1e-5)


def test_a_report_gives_perplexity_and_bits_of_the_loss() -> None:
    report = make_module().summarize({"loss": math.log(80)})
    assert report["perplexity"] == pytest.approx(80)
    assert report["bits_per_word"] == pytest.approx(math.log2(80))
    assert make_module().summarize({"loss": 1e4})["perplexity"] == math.inf
    assert make_module().summarize({}) == {}


def test_the_objective_adds_activation_and_slowness() -> None:
    states, dropped, logits = torch.randn(5, 2, 6), torch.randn(5, 2, 6), torch.randn(5, 2, 11)
    batch = Batch(torch.zeros(5, 2), torch.randint(11, (5, 2)))
    module = make_module(activation=2.0, slowness=0.5)
    total = F.cross_entropy(logits.view(10, 11), batch.targets.view(10), reduction="sum")
    output = TextOutput(nll_sum=total, states=states, dropped=dropped)
    change = torch.stack([(states[t + 1] - states[t]).square() for t in range(4)]).mean()
    expected = F.cross_entropy(logits.view(10, 11), batch.targets.view(10))
    torch.testing.assert_close(module.loss(output, batch), expected)
    expected = expected + 2.0 * dropped.square().mean() + 0.5 * change
    torch.testing.assert_close(module.training_loss(output, batch), expected)


def test_a_segment_of_one_word_has_no_slowness() -> None:
    module = make_module(slowness=0.5)
    words = torch.randint(11, (1, 2))
    batch = Batch(words, words)
    assert module.training_loss(module.forward(batch, {}), batch).isfinite()


def test_the_domain_builds_what_a_config_says_on_any_device() -> None:
    task = TextTask()
    search, train = RECIPES["search"]["rnn"]["ptb"], RECIPES["train"]["rnn"]["ptb"]
    with torch.device("meta"):
        for single, shape in ((True, (1, 1)), (False, (35, 256))):
            batch = task.example(search, FACTS, single=single)
            module = task.build(search, FACTS, None)
            module.network.train(not single)
            output = module.forward(batch, {"recurrent": torch.zeros(36, 5)})
            assert output.nll_sum.shape == ()
            assert output.states.shape == (*shape, 300)
        discrete = task.build(train, FACTS, load("rnn_enas", SPACES))
    assert isinstance(module.network.cell, SearchCell)
    assert isinstance(discrete.network.cell, DiscreteCell)
    assert discrete.network.cell.width == 850


def test_settings_of_the_other_space_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="of the space 'cnn' given to the recurrent one"):
        TextTask().build(RECIPES["search"]["cnn"]["cifar"], FACTS, None)


def alphas_gradient(seed: int, method: Literal["finite-difference", "exact"]) -> Tensor:
    """Of one step of the search at the paper's dropout rates, in double precision."""
    torch.manual_seed(seed)
    width, words = 16, 30
    model = LanguageModel(RecurrentNetworkConfig(width=width), SearchCell(RNN, width), words)
    for weight in model.parameters():
        torch.nn.init.uniform_(weight, -0.3, 0.3)
    paper = RECIPES["search"]["rnn"]["ptb"]
    assert paper.alphas is not None
    config: AlphasConfig = replace(paper.alphas, hypergradient=method)
    alphas = STRATEGIES["darts"].initial(RNN, 1e-3, torch.Generator().manual_seed(seed))
    architect = Architect(alphas, config)
    recorded: list[Tensor] = []
    step = architect.step
    architect.step = lambda **closures: recorded.extend(step(**closures)) or recorded  # type: ignore[method-assign, func-returns-value]
    module = TextTrainingModule(model)
    state = State(
        module=module,
        optimizer=torch.optim.SGD(model.parameters(), lr=20.0, weight_decay=5e-7),
        architect=architect,
        meter=Meter(module.metric_names, torch.device("cpu")),
    )
    train, valid = (
        Batch(torch.randint(words, (6, 8)), torch.randint(words, (6, 8))) for _ in range(2)
    )
    steps.search_step(state, train, valid, seed=0)
    return recorded[0].flatten()


def cosine(seed: int) -> float:
    """Between the finite difference and the exact product."""
    found, exact = (alphas_gradient(seed, m) for m in ("finite-difference", "exact"))
    return F.cosine_similarity(found, exact, dim=0).item()


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("seed", range(5))
def test_under_the_papers_dropout_the_finite_difference_is_close_to_the_exact_product(
    seed: int,
) -> None:
    assert cosine(seed) > 0.95


@pytest.mark.usefixtures("double_precision")
def test_without_the_replay_of_the_masks_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # What `search_step` seeds with goes on counting, as a generator that is not set back would.
    calls = iter(range(1000))
    monkeypatch.setattr(steps, "seed_for", lambda *_position: next(calls))
    assert min(cosine(seed) for seed in range(5)) < 0.8


def test_hidden_states_of_weights_and_alphas_are_carried_apart() -> None:
    torch.manual_seed(0)
    config = RECIPES["search"]["rnn"]["pydoc"]
    module = TextTask().build(config, FACTS, None)
    assert config.alphas is not None
    alphas = STRATEGIES["darts"].initial(RNN, 1e-3, None)
    state = State(
        module=module,
        optimizer=torch.optim.SGD(module.network.parameters(), lr=1.0),
        architect=Architect(alphas, config.alphas),
        meter=Meter(module.metric_names, torch.device("cpu")),
    )
    seen: list[Tensor | None] = []
    forward = module.forward
    module.forward = lambda batch, mixture: seen.append(batch.hidden) or forward(batch, mixture)  # type: ignore[method-assign, func-returns-value]
    words = torch.randint(11, (4, 3))
    for step in range(2):
        batch = Batch(words, words, carries_hidden=step > 0)
        steps.search_step(state, batch, batch, seed=0)
        after_alphas = dict(state.hidden)
        steps.train_step(state, batch, config)
        # The alphas' passes leave the weights' state alone, and the other way round.
        assert torch.equal(after_alphas["alphas"], state.hidden["alphas"])
        if step == 0:
            assert "weights" not in after_alphas
            first = dict(state.hidden)
    # Virtual step, validation, and the two sides of the finite difference; then the weights.
    assert all(hidden is None for hidden in seen[:5])
    expected = ["weights", "alphas", "weights", "weights", "weights"]
    for hidden, name in zip(seen[5:], expected, strict=True):
        assert hidden is not None
        assert torch.equal(hidden, first[name])
        assert not hidden.requires_grad
