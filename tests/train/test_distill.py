"""The student is pulled to what the teacher says: by its own head, or by a second one for other classes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import head_of
from edgewright.train.data.augment import Augmentation
from edgewright.train.data.loading import Batch, Renderer
from edgewright.train.data.samples import Sample
from edgewright.train.distill import Lessons, Taught, compile_teacher

CLASSES = 3
SAMPLES = 6
VIEWS = 2
TEMPERATURE = 2.0
SPEC = Preprocess(resize=8, crop=8)
Make = Callable[..., Taught]


def little_network(classes: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, classes))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """Pictures of noise: no two alike, nor two views of one."""
    rng = np.random.default_rng(0)
    samples = [Sample(png(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)), 0, f"{n}.png") for n in range(SAMPLES)]
    return Renderer(samples, SPEC, Augmentation(0.35, True, 0.2), seed=0)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def student() -> Network:
    return Network(little_network(CLASSES, seed=1), SPEC)


@pytest.fixture
def make(renderer: Renderer, student: Network, tmp_path: Path) -> Iterator[Make]:
    """`make(classes=5, size=8)`: the student, taught by a network with so many classes that looks at so many pixels."""
    made: list[Taught] = []

    def build(classes: int = 5, size: int = 8, temperature: float = TEMPERATURE) -> Taught:
        teacher = little_network(classes, seed=2)
        with torch.no_grad():
            teacher[-1].weight *= 20  # an opinion on every picture
        compiled = compile_teacher(
            teacher, SPEC.model_copy(update={"crop": size, "resize": size}), SPEC.crop, torch.device("cpu")
        )
        lessons = Lessons(compiled, classes, renderer, VIEWS, tmp_path / "cache")
        _, head = head_of(student)
        taught = Taught(student, head, lessons, same_classes=classes == CLASSES, temperature=temperature)
        made.append(taught)
        return taught

    yield build
    for taught in made:
        taught.close()


def batch(renderer: Renderer, row: int, indices: list[int]) -> Batch:
    pixels = torch.from_numpy(np.stack([renderer(index, row + 1) for index in indices]))
    return Batch(pixels, torch.zeros(len(indices), dtype=torch.int64), torch.tensor(indices), row)


def teacher_says(renderer: Renderer, shown: Batch, classes: int, size: int = 8) -> torch.Tensor:
    """float64 (N, classes), computed by torch from the pixels that the student sees."""
    teacher = little_network(classes, seed=2)
    with torch.no_grad():
        teacher[-1].weight *= 20
    network = Network(teacher, SPEC).eval()
    images = shown.inputs.permute(0, 3, 1, 2).float()
    if size != SPEC.crop:
        images = nn.functional.interpolate(images, size=(size, size), mode="bilinear")
    with torch.no_grad():
        logits: torch.Tensor = network(images.permute(0, 2, 3, 1))
    return logits.double()


@pytest.mark.parametrize("classes", [CLASSES, 5])
@pytest.mark.parametrize("row", [0, 1])
def test_loss_is_the_divergence_of_softened_scores_of_the_same_view(
    make: Make, renderer: Renderer, classes: int, row: int
) -> None:
    taught, shown = make(classes), batch(renderer, row, [5, 0, 3])
    taught.prepare(row)
    _, ours = taught(shown.inputs)
    theirs = torch.softmax(teacher_says(renderer, shown, classes) / TEMPERATURE, dim=1)
    mine = torch.softmax(ours.double() / TEMPERATURE, dim=1)
    expected = TEMPERATURE**2 * (theirs * (theirs / mine).log()).sum(dim=1).mean()
    assert expected > 0.05
    # Logits are kept in half precision.
    assert taught.loss(ours, shown).item() == pytest.approx(expected.item(), rel=1e-2)


def test_every_picture_and_view_has_a_lesson_of_its_own(make: Make, renderer: Renderer) -> None:
    taught = make()
    said = []
    for row in range(VIEWS):
        taught.prepare(row)
        said += [tuple(taught._lessons.logits(row, torch.tensor([index]))[0].tolist()) for index in range(SAMPLES)]
    assert len(set(said)) == VIEWS * SAMPLES


def test_loss_is_zero_where_the_student_says_what_the_teacher_says(make: Make, renderer: Renderer) -> None:
    taught, shown = make(), batch(renderer, 1, [4, 2])
    taught.prepare(1)
    lessons = taught._lessons.logits(1, shown.indices)
    # Adding the same number to every logit says the same.
    assert taught.loss(lessons + 7, shown).item() == pytest.approx(0, abs=1e-5)
    assert taught.loss(lessons.flip(1), shown).item() > 0.05


def test_teacher_sees_the_students_pixels_at_its_own_size(make: Make, renderer: Renderer) -> None:
    taught, shown = make(5, size=20), batch(renderer, 0, [1, 2])
    taught.prepare(0)
    expected = teacher_says(renderer, shown, 5, size=20)
    assert torch.allclose(taught._lessons.logits(0, shown.indices).double(), expected, atol=2e-2)


def test_teacher_of_the_same_classes_teaches_the_students_own_head(make: Make, renderer: Renderer) -> None:
    taught, shown = make(CLASSES), batch(renderer, 0, [0, 1])
    assert taught.second is None
    logits, ours = taught(shown.inputs)
    assert ours is logits


def test_teacher_of_other_classes_teaches_a_second_head_and_the_body(make: Make, renderer: Renderer) -> None:
    taught, shown = make(5), batch(renderer, 0, [0, 1, 2])
    taught.prepare(0)
    logits, ours = taught(shown.inputs)
    assert (logits.shape, ours.shape) == ((3, CLASSES), (3, 5))
    torch.autograd.backward(taught.loss(ours, shown))
    trained = {name for name, value in taught.named_parameters() if value.grad is not None and value.grad.any()}
    assert trained == {"second.weight", "second.bias", "model.backbone.0.weight", "model.backbone.0.bias"}


def test_learning_lowers_the_loss(make: Make, renderer: Renderer) -> None:
    taught, shown = make(5), batch(renderer, 0, [0, 1, 2])
    taught.prepare(0)
    optimizer = torch.optim.SGD(taught.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = taught.loss(taught(shown.inputs)[1], shown)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_student_is_not_changed_by_its_second_head(make: Make, student: Network, renderer: Renderer) -> None:
    shown = batch(renderer, 0, [0, 1])
    before, names = student(shown.inputs).detach(), list(student.state_dict())
    taught = make(5)
    assert list(student.state_dict()) == names
    assert torch.equal(student(shown.inputs), before)
    assert torch.equal(taught(shown.inputs)[0], before)
