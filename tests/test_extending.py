"""What varies, added from outside the package: a task of classes, a task of text, a loss over classes, a loss over tokens, a teacher.

Each is an object of plain functions in at most forty lines, named in a config as `test_extending:NAME`. The examples of
docs/extending.md, of which one is a method, run as they stand there.
"""

import dataclasses
import inspect
import random
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from tiny_runs import ROOT, tiny_run

from raw2s.config import parse_config
from raw2s.evaluation.metrics import ACCURACY, EXACT_MATCH
from raw2s.labels.label_files import Annotation
from raw2s.labels.targets import Labeled
from raw2s.losses import FusedHead, linear_loss
from raw2s.methods.loss import Loss, LossSection, no_schedule
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check
from raw2s.pipeline.run import run_pipeline
from raw2s.tasks import Example, Halves, Task, TaskKind, TaskSection
from raw2s.teachers import TeacherKind, TeacherSection

# --- a task of classes ---
SIZES = ("few", "some", "many")


class CountSection(TaskSection):
    name: str = "test_extending:COUNT"
    longest: int = 9
    """Most words in a sentence."""


def count_examples(section: CountSection, first: int, n: int, seed: int) -> list[Example]:
    draw, examples = random.Random(seed), []
    for i in range(first, first + n):
        words = draw.randint(1, section.longest)
        size = SIZES[min(2, words // 3)]
        examples.append(Example(id=i, prompt="set alarm " * words + "\n", target=size, gold=size))
    return examples


def make_count(section: CountSection) -> Task:
    def draw(seed: int) -> Halves:
        return Halves(count_examples(section, 0, 48, seed), count_examples(section, 100, 24, seed + 1))

    return Task(
        name=section.name, form="classes", classes=SIZES, metric=ACCURACY, parse=str, nothing=None, draw=draw,
        held_out=lambda part: count_examples(section, 200, 16, seed=7), credit="made for a test",
    )  # fmt: skip


COUNT = TaskKind(section=CountSection, make=make_count)

# --- a task of text ---
WORDS = ("alarm", "music", "light", "mail")


class EchoSection(TaskSection):
    name: str = "test_extending:ECHO"


def echo_examples(first: int, n: int, seed: int) -> list[Example]:
    draw = random.Random(seed)
    words = [draw.choice(WORDS) for _ in range(n)]
    return [Example(id=first + i, prompt=f"say {word}\n", target=word, gold=word) for i, word in enumerate(words)]


def make_echo(section: EchoSection) -> Task:
    return Task(
        name=section.name, form="text", classes=(), metric=EXACT_MATCH, parse=str.strip, nothing="",
        draw=lambda seed: Halves(echo_examples(0, 48, seed), echo_examples(100, 24, seed + 1)),
        held_out=lambda part: echo_examples(200, 16, seed=7), credit="made for a test",
    )  # fmt: skip


ECHO = TaskKind(section=EchoSection, make=make_echo)


# --- a loss over classes ---
class GeneralizedSection(LossSection):
    name: str = "test_extending:GCE"
    q: float = 0.7
    """Between cross entropy (0) and mean absolute error (1)."""


def gce_over_classes(logits_PK, target_PK, section, at):
    """(1 - p^q) / q, expected over the target (Zhang and Sabuncu, 2018)."""
    p_PK = logits_PK.float().softmax(-1).clamp(min=1e-7)
    return (target_PK * (1 - p_PK**section.q) / section.q).sum(), {}


GCE = Loss(
    section=GeneralizedSection, title=lambda section: f"GCE q={section.q:g}", card=lambda section: "generalized cross entropy",
    coefficients=no_schedule, linear=lambda section: True, over_tokens=None, over_classes=gce_over_classes,
)  # fmt: skip


# --- a loss over tokens ---
class FocalSection(LossSection):
    name: str = "test_extending:FOCAL"
    focus: float = 2.0
    """How much less a token counts the surer the student is of it."""


def focal(logits_RV, target_RV, focus):
    """(1 - p)^focus · -log p, expected over the target (Lin et al., 2017)."""
    log_p_RV = logits_RV.log_softmax(-1)
    return -(target_RV * (1 - log_p_RV.exp()) ** focus * log_p_RV).sum(-1)


def focal_over_tokens(head, hidden_NH, targets, section, at):
    function = partial(linear_loss, partial(focal, focus=section.focus))
    return head(function, hidden_NH, targets.token_N, targets.token_prob, row_weight_N=targets.row_weight_N).loss, {}


FOCAL = Loss(
    section=FocalSection, title=lambda section: "focal", card=lambda section: "focal loss", coefficients=no_schedule,
    linear=lambda section: True, over_tokens=focal_over_tokens, over_classes=None,
)  # fmt: skip


# --- a teacher kind: rules ---
class KeywordSection(TeacherSection):
    kind: str = "test_extending:KEYWORDS"
    keyword: str
    """The word that it looks for."""


def by_keyword(section: KeywordSection, asked) -> list[Annotation]:
    if asked.task.form == "text":
        return [Annotation(i, "", text=section.keyword) for i, prompt in asked.prompts.items() if section.keyword in prompt]
    chosen = tuple(float(place == 0) for place in range(len(asked.task.classes)))
    return [Annotation(i, "", probabilities=chosen) for i, prompt in asked.prompts.items() if section.keyword in prompt]


KEYWORDS = TeacherKind(section=KeywordSection, fingerprint=lambda section: section.keyword, annotate=by_keyword)
# --- end ---

RULE = {"name": "rule", "kind": "test_extending:KEYWORDS", "keyword": "alarm"}
OF_CLASSES = {
    "task": {"name": "test_extending:COUNT"},
    "teachers": [RULE],
    "methods": [{"method": "naive", "loss": {"name": "test_extending:GCE", "q": 0.5}}],
}
OF_TEXT = {
    "task": {"name": "test_extending:ECHO"},
    "teachers": [RULE],
    "labeling": {"max_rejected_fraction": 0.9},  # a rule that knows one word
    "methods": [{"method": "single", "teacher": "rule", "loss": "test_extending:FOCAL"}],
}
PARTS = {
    "a task of classes": COUNT.make(CountSection()),
    "a task of text": ECHO.make(EchoSection()),
    "a task kind": COUNT,
    "a loss over classes": GCE,
    "a loss over tokens": FOCAL,
    "a teacher kind": KEYWORDS,
}


def test_each_is_at_most_forty_lines():
    pieces = Path(__file__).read_text().split("# --- end ---")[0].split("# --- ")[1:]
    assert len(pieces) == 5
    assert all(len([line for line in piece.splitlines() if line.strip()]) <= 40 for piece in pieces)


@pytest.mark.parametrize("sections", [OF_CLASSES, OF_TEXT], ids=["classes", "text"])
def test_a_config_that_names_them_is_planned(tmp_path, sections):
    config = parse_config(tiny_run(tmp_path, **sections))
    check(config)
    plan = plan_stages(config, 1)
    assert {"labels/rule", "label", "ceiling"} <= {stage.name for stage in plan.in_order()}
    louder = {**sections, "methods": [{"method": "naive"}]}
    other = plan_stages(parse_config(tiny_run(tmp_path, **louder)), 1)
    assert plan.students[0].stage.key != other.students[0].stage.key
    assert plan.label.key == other.label.key


@pytest.mark.parametrize("name", PARTS)
def test_leaving_out_a_part_is_an_error_when_the_object_is_made(name):
    whole = PARTS[name]
    given = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    required = [f.name for f in dataclasses.fields(whole) if f.default is dataclasses.MISSING]
    assert required
    type(whole)(**given)
    for part in required:
        with pytest.raises(TypeError, match=part):
            type(whole)(**{key: value for key, value in given.items() if key != part})


def test_a_loss_without_a_formula_is_an_error():
    with pytest.raises(ValueError, match="give over_tokens, over_classes"):
        dataclasses.replace(GCE, over_classes=None)


def test_the_loss_over_classes_is_its_formula():
    logits_PK, target_PK = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]).requires_grad_(), torch.eye(3)[[0, 2]]
    loss, _ = GCE.over_classes(logits_PK, target_PK, GeneralizedSection(q=0.5), None)
    p = logits_PK.softmax(-1)[[0, 1], [0, 2]]
    assert loss.item() == pytest.approx(((1 - p**0.5) / 0.5).sum().item())
    loss.backward()
    assert (logits_PK.grad.argmin(-1) == torch.tensor([0, 2])).all(), "towards the target"


def test_the_examples_of_the_page_run_as_they_stand(tmp_path, monkeypatch):
    """The page's Python in order, as one module under the names that its YAML has; each config is planned."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    teams = ("billing", "network", "other")
    starts = {"a": (0, 48), "b": (100, 24), "validation": (200, 16), "test": (300, 16)}
    rows = {part: [(i, f"invoice {i}", teams[i % 3]) for i in range(start, start + n)] for part, (start, n) in starts.items()}
    monkeypatch.setitem(sys.modules, "tickets", SimpleNamespace(read=rows.__getitem__))
    module = ModuleType("mytasks")
    for name in ("mytasks", "mylosses", "mymethods", "myteachers"):
        monkeypatch.setitem(sys.modules, name, module)
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)), module.__dict__)
    task, loss, method, teachers = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL))

    for sections in (loss, {**task, **method, **teachers}):
        config = parse_config(tiny_run(tmp_path, **sections))
        check(config)
        assert plan_stages(config, 1).students
    table = [{"id": 1, "logits": [[1.0, 0.0], [2.0, 0.0]]}, {"id": 2, "logits": [[1.0, 0.0], [0.0, 1.0]]}]
    labeled = Labeled(prompts={1: "a", 2: "b"}, table=table, weights=[0.5, 0.5])
    assert [row["id"] for row in module.AGREED.from_classes(labeled, config.methods[0])] == [1]
    targets = SimpleNamespace(token_N=torch.tensor([1, 0]), token_prob=None, row_weight_N=torch.ones(2))
    head = FusedHead(torch.nn.Linear(4, 3))
    assert module.FOCAL.over_tokens(head, torch.randn(2, 4), targets, module.FocalSection(), {})[0] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_a_loss_and_a_teacher_go_through_a_whole_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(inspect.getfile(sys.modules[__name__])).parent))  # for Ray's processes
    import ray

    ray.shutdown()  # one started without that path
    results = run_pipeline(parse_config(tiny_run(tmp_path, **OF_TEXT)))
    ray.shutdown()
    (rule,) = results.teachers
    assert rule.score is None and rule.on_b is not None
    assert 0 <= results.students[0].score <= 1
    assert (tmp_path / "tiny" / "report.html").is_file()
    assert results.credit == "made for a test"
