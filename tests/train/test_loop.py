"""The loop does the arithmetic it says, ends when it should, and goes on after an interrupt as if there had been none."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from edgewright.runtime.errors import WeightsError
from edgewright.train.data.loading import Batch, epoch_order
from edgewright.train.loop import EpochRecord, Plan, fit
from edgewright.train.mixing import Mixer
from edgewright.train.processes import Processes

CLASSES, FEATURES, SAMPLES, BATCH = 3, 6, 24, 4
STEPS = SAMPLES // BATCH
VALUES = torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(SAMPLES) % CLASSES
Source = Callable[[int, int], Generator[Batch, None, None]]


def source(batch: int = BATCH, pause_s: float = 0.0) -> Source:
    """(epoch, first batch) -> batches of the epoch's order."""

    def batches(epoch: int, first: int) -> Generator[Batch, None, None]:
        order = torch.from_numpy(epoch_order(LABELS.numpy(), 0, epoch, balanced=False))
        for rows in order.split(batch)[first:]:
            time.sleep(pause_s)
            yield Batch(VALUES[rows], LABELS[rows], rows)

    return batches


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, CLASSES)


def with_dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES)
    )


def top1(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(VALUES).argmax(1) == LABELS).float().mean())


def plan(model: nn.Module, **changes: Any) -> Plan:
    usual = Plan(
        epochs=3,
        steps=STEPS,
        source=source(),
        validate=lambda: top1(model),
        parameters=[{"params": list(model.parameters()), "lr": 1e-2}],
        optimizer="adamw",
        weight_decay=0.02,
        warmup=0.1,
        label_smoothing=0.1,
        accumulate=1,
        average=0.0,
        mixer=Mixer(0.0, 0.0, CLASSES),
        mixed_from=0,
        class_weights=None,
        patience=None,
        precision=torch.float32,
        processes=Processes(torch.device("cpu")),
        checkpoint_s=1e9,
    )
    return dataclasses.replace(usual, **changes)


def run(model: nn.Module, folder: Path, keep: Callable[[], None] = lambda: None, **changes: Any) -> list[EpochRecord]:
    return fit(model, plan(model, **changes), folder / "tune.pt", keep)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


# One step


@pytest.mark.parametrize("class_weights", [None, torch.tensor([4.0, 1.0, 0.25])])
def test_first_step_is_nesterovs_on_the_smoothed_and_weighted_loss(
    tmp_path: Path, class_weights: torch.Tensor | None
) -> None:
    model, by_hand = linear(), linear()
    run(
        model,
        tmp_path,
        epochs=1,
        steps=1,
        optimizer="sgd",
        weight_decay=0.0,
        class_weights=class_weights,
        parameters=[{"params": list(model.parameters()), "lr": 0.1}],
    )
    (batch,) = [next(source()(1, 0))]
    scores = functional.log_softmax(by_hand(batch.inputs), dim=1)
    balance = torch.ones(CLASSES) if class_weights is None else class_weights
    targets = 0.9 * functional.one_hot(batch.labels, CLASSES) + 0.1 / CLASSES
    loss = -(targets * balance * scores).sum() / balance[batch.labels].sum()
    gradient, bias_gradient = torch.autograd.grad(loss, list(by_hand.parameters()))
    # Half of the peak in the one step of the warm-up; Nesterov's first step is 1 + 0.9 of the gradient.
    rate = 0.5 * 0.1 * 1.9
    found = weights(model)
    assert torch.allclose(found["weight"], by_hand.state_dict()["weight"] - rate * gradient, atol=1e-6)
    assert torch.allclose(found["bias"], by_hand.state_dict()["bias"] - rate * bias_gradient, atol=1e-6)


@pytest.mark.parametrize(("mixed_from", "mixed"), [(2 * STEPS, 2 * STEPS), (2 * STEPS + 1, 0)])
def test_pictures_are_mixed_if_training_is_planned_long_enough(tmp_path: Path, mixed_from: int, mixed: int) -> None:
    class Counter(Mixer):
        calls = 0

        def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.calls += 1
            return super().__call__(inputs, labels)

    mixer = Counter(0.2, 0.0, CLASSES)
    run(linear(), tmp_path, epochs=2, mixer=mixer, mixed_from=mixed_from)
    assert mixer.calls == mixed


def test_one_update_of_accumulated_batches_is_exactly_that_of_the_large_batch(tmp_path: Path) -> None:
    found = []
    for name, changes in (
        ("small", {"accumulate": STEPS, "steps": STEPS}),
        ("large", {"steps": 1, "source": source(SAMPLES)}),
    ):
        model = linear()
        with rates() as seen:
            run(model, tmp_path / name, epochs=1, optimizer="sgd", weight_decay=0.0, warmup=0.0, **changes)
        assert len(seen) == 1
        assert seen[0][0] == pytest.approx(0.5e-2)
        found.append(weights(model))
    assert torch.allclose(found[0]["weight"], found[1]["weight"], atol=1e-6)
    assert torch.allclose(found[0]["bias"], found[1]["bias"], atol=1e-6)


def test_smaller_last_group_weighs_as_much_for_its_pictures(tmp_path: Path) -> None:
    # 6 batches in groups of 4: the last two are a group, and their gradient is a mean over two.
    model = linear()
    gradients: list[torch.Tensor] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: gradients.append(optimizer.param_groups[0]["params"][0].grad.clone())
    )
    try:
        run(model, tmp_path, epochs=1, accumulate=4, parameters=[{"params": list(model.parameters()), "lr": 1e-12}])
    finally:
        hook.remove()
    rows = torch.cat([batch.indices for batch in list(source()(1, 0))[4:]])
    untouched = linear()
    loss = functional.cross_entropy(untouched(VALUES[rows]), LABELS[rows], label_smoothing=0.1)
    expected = torch.autograd.grad(loss, untouched.weight)[0]  # type: ignore[arg-type]
    assert len(gradients) == 2
    assert torch.allclose(gradients[1], expected, atol=1e-6)


# The schedule


class rates:  # noqa: N801 - reads as a function
    """Learning rates of all groups at every update."""

    def __enter__(self) -> list[list[float]]:
        seen: list[list[float]] = []
        self._hook = register_optimizer_step_pre_hook(
            lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
        )
        return seen

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


def test_rate_rises_in_a_line_and_falls_in_a_cosine_to_nothing(tmp_path: Path) -> None:
    model = linear()
    with rates() as seen:
        run(model, tmp_path, epochs=10, warmup=0.2)
    found = np.array(seen)[:, 0] / 1e-2
    ramp = 12
    assert len(found) == 10 * STEPS
    assert np.allclose(np.diff(found[:ramp]), 1 / (ramp + 1))
    assert found[ramp] == found.max() == 1.0
    assert (np.diff(found[ramp:]) < 0).all()
    assert found[ramp + 24] == pytest.approx(0.5)
    assert 0 < found[-1] < 0.01


def test_every_group_keeps_its_share_of_the_rate(tmp_path: Path) -> None:
    model = linear()
    first, second = model.parameters()
    groups = [{"params": [first], "lr": 1e-3}, {"params": [second], "lr": 1e-2, "weight_decay": 0.0}]
    with rates() as seen:
        run(model, tmp_path, parameters=groups)
    assert all(high == pytest.approx(10 * low) for low, high in seen)


def test_learning_works(tmp_path: Path) -> None:
    model = linear()
    before = top1(model)
    records = run(model, tmp_path, epochs=40, parameters=[{"params": list(model.parameters()), "lr": 0.1}])
    assert records[-1].train_loss < 0.9 * records[0].train_loss
    assert records[-1].val_top1 > before


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_precision_is_that_of_the_arithmetic_not_of_the_weights(tmp_path: Path, precision: torch.dtype) -> None:
    model = linear()
    seen = []
    model.register_forward_hook(lambda module, _, output: seen.append(output.dtype) if module.training else None)
    run(model, tmp_path, epochs=1, precision=precision)
    assert set(seen) == {precision}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


# Records, keeping, stopping


def test_record_tells_the_epoch(tmp_path: Path) -> None:
    model = linear()
    records = run(model, tmp_path, stage="2-trial", source=source(pause_s=0.005))
    assert [record.epoch for record in records] == [1, 2, 3]
    assert {record.stage for record in records} == {"2-trial"}
    assert all(0 < record.train_loss < 5 and 0 <= record.train_top1 <= 1 for record in records)
    assert all(record.seconds >= record.train_seconds >= STEPS * 0.005 for record in records)
    assert records[-1].val_top1 == top1(model)


def scripted(values: list[float]) -> Callable[[], float]:
    remaining: Iterator[float] = iter(values)
    return lambda: next(remaining)


def test_weights_are_kept_whenever_validation_was_never_better(tmp_path: Path) -> None:
    model = linear()
    kept: list[int] = []
    validated: list[float] = []
    values = scripted([0.5, 0.4, 0.5, 0.6, 0.1])

    def validate() -> float:
        validated.append(values())
        return validated[-1]

    run(model, tmp_path, lambda: kept.append(len(validated)), epochs=5, validate=validate)
    assert kept == [1, 4]


def test_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    model = linear()
    kept: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    weight = model.get_parameter("weight")

    def validate() -> float:
        seen.append(weight.detach().clone())
        return 0.1 * len(seen)

    run(model, tmp_path, lambda: kept.append(weight.detach().clone()), average=0.9, validate=validate)
    assert all(torch.equal(one, other) for one, other in zip(kept, seen, strict=True))
    assert not torch.equal(kept[-1], weight)


def test_patience_ends_training(tmp_path: Path) -> None:
    model = linear()
    values = [0.5, 0.6, 0.6, 0.55, 0.6, 0.9]
    records = run(model, tmp_path, epochs=6, patience=3, validate=scripted(values))
    assert [record.val_top1 for record in records] == values[:5]


def test_patience_is_not_forgotten_by_an_interrupt(tmp_path: Path) -> None:
    model = linear()
    with pytest.raises(KeyboardInterrupt):
        run(
            model, tmp_path, epochs=9, patience=3, validate=scripted([0.5, 0.4, 0.4]), source=interrupted(3 * STEPS + 2)
        )
    records = run(linear(), tmp_path, epochs=9, patience=3, validate=scripted([0.4, 0.9, 0.9]))
    assert [record.val_top1 for record in records] == [0.5, 0.4, 0.4, 0.4]


# Interrupts


def interrupted(after: int) -> Source:
    """As :func:`source`, until so many batches were handed out."""
    handed = 0

    def batches(epoch: int, first: int) -> Generator[Batch, None, None]:
        nonlocal handed
        for batch in source()(epoch, first):
            if handed == after:
                raise KeyboardInterrupt
            handed += 1
            yield batch

    return batches


EVERYTHING: dict[str, Any] = {"average": 0.9, "mixer": Mixer(0.4, 0.0, CLASSES), "checkpoint_s": -1.0}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 3, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3, 3 * STEPS - 1])
def test_interrupted_training_ends_with_the_same_bits(
    tmp_path: Path, after: int, accumulate: int, optimizer: str
) -> None:
    recipe = EVERYTHING | {"accumulate": accumulate, "optimizer": optimizer}
    straight, kept = with_dropout(), []
    records = run(straight, tmp_path / "straight", lambda: kept.append(weights(straight)), **recipe)
    first, best = with_dropout(), []
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "resumed", lambda: best.append(weights(first)), source=interrupted(after), **recipe)
    # Another process; what it begins with does not matter if there is a state.
    second = with_dropout()
    if (tmp_path / "resumed" / "tune.pt").exists():
        with torch.no_grad():
            for parameter in second.parameters():
                parameter.normal_()
        torch.manual_seed(99)
    resumed = run(second, tmp_path / "resumed", lambda: best.append(weights(second)), **recipe)
    assert_equal(weights(second), weights(straight))
    assert_equal(best[-1], kept[-1])

    def without_times(one: EpochRecord) -> EpochRecord:
        return dataclasses.replace(one, seconds=0.0, train_seconds=0.0)

    assert [without_times(one) for one in resumed] == [without_times(one) for one in records]


def test_many_interrupts_are_as_good_as_none(tmp_path: Path) -> None:
    straight = with_dropout()
    run(straight, tmp_path / "straight", **EVERYTHING)
    for _ in range(3 * STEPS - 1):
        with pytest.raises(KeyboardInterrupt):
            run(with_dropout(), tmp_path / "resumed", source=interrupted(1), **EVERYTHING)
    last = with_dropout()
    run(last, tmp_path / "resumed", **EVERYTHING)
    assert_equal(weights(last), weights(straight))


def test_nothing_is_saved_inside_an_epoch_before_its_time(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(linear(), tmp_path, source=interrupted(STEPS - 1), checkpoint_s=60.0)
    assert not (tmp_path / "tune.pt").exists()


def test_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = linear()
    records = run(first, tmp_path)
    second = linear()
    assert run(second, tmp_path, source=interrupted(0)) == records
    assert_equal(weights(second), weights(first))


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    run(linear(), tmp_path)
    state = tmp_path / "tune.pt"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(WeightsError, match="is damaged"):
        run(linear(), tmp_path)


# A budget


def test_deadline_that_is_over_plans_nothing(tmp_path: Path) -> None:
    model = with_dropout()
    before, kept = weights(model), []
    assert run(model, tmp_path, lambda: kept.append(1), deadline=time.monotonic() - 1) == []
    assert kept == []
    assert_equal(weights(model), before)


def test_far_deadline_changes_nothing(tmp_path: Path) -> None:
    found = []
    for name, deadline in (("none", None), ("far", time.monotonic() + 3600)):
        model = with_dropout()
        run(model, tmp_path / name, deadline=deadline, **EVERYTHING)
        found.append(weights(model))
    assert_equal(found[1], found[0])


@pytest.mark.parametrize("budget_s", [0.6, 1.5])
def test_as_many_batches_are_planned_as_fit(tmp_path: Path, budget_s: float) -> None:
    model, updates = linear(), []
    pause_s = 0.02
    hook = register_optimizer_step_pre_hook(lambda *_: updates.append(time.monotonic()))
    started = time.monotonic()

    def validate() -> float:
        time.sleep(pause_s)
        return top1(model)

    model.register_forward_hook(lambda module, *_: time.sleep(pause_s) if module.training else None)
    try:
        run(model, tmp_path, epochs=1000, deadline=started + budget_s, validate=validate)
    finally:
        hook.remove()
    taken = time.monotonic() - started
    # Four batches and a validation are measured first. Each step and validation has its pause, and little beside.
    possible = (budget_s - 5 * pause_s) / (pause_s * (1 + 1 / STEPS))
    assert 0.5 * possible <= len(updates) <= possible
    assert taken < 1.25 * budget_s + 0.1


def test_rate_ends_near_nothing_where_the_budget_ends(tmp_path: Path) -> None:
    model = linear()
    model.register_forward_hook(lambda module, *_: time.sleep(0.01) if module.training else None)
    with rates() as seen:
        run(model, tmp_path, epochs=1000, deadline=time.monotonic() + 1.5)
    assert len(seen) > 3 * STEPS
    assert seen[-1][0] < 0.1 * max(rate for (rate,) in seen)


def test_budget_that_is_resumed_counts_what_was_used(tmp_path: Path) -> None:
    def slow() -> nn.Module:
        model = linear()
        model.register_forward_hook(lambda module, *_: time.sleep(0.04) if module.training else None)
        return model

    budget_s = 4.0
    with pytest.raises(KeyboardInterrupt):
        # Four of these batches are only measured.
        run(
            slow(),
            tmp_path,
            epochs=1000,
            deadline=time.monotonic() + budget_s,
            checkpoint_s=-1.0,
            source=interrupted(4 + 8 * STEPS),
        )
    started = time.monotonic()
    run(slow(), tmp_path, epochs=1000, deadline=started + budget_s, checkpoint_s=-1.0)
    # The first part took 48 steps of 40 ms; without them counted, this one would take all of 4 s.
    assert time.monotonic() - started < budget_s - 0.6
