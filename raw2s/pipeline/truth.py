"""Which ground truth a run sees and what it decides there: what a reader of its numbers has to know, said before it starts."""

from raw2s.config import RunConfig
from raw2s.models.tiny import pretraining_of
from raw2s.pipeline.seed_plan import SeedPlan
from raw2s.report.systems import listed


def truth_used(config: RunConfig, plan: SeedPlan) -> list[str]:
    """A sentence each: who learns from A's and B's ground truth, what devel's chooses, and what built-in models have read."""
    parts = plan.label.split.drawn.parts
    learning = [teacher.name for teacher in config.models if teacher.fine_tune]
    shown = [teacher.name for teacher in config.models if not teacher.fine_tune and teacher.shots]
    of_a = [f"trains {listed(learning)}"] if learning else []
    of_a += [f"gives {listed(shown)} examples"] if shown else []
    lines = [f"A's ground truth ({len(parts['teacher']):,} examples) {' and '.join(of_a) or 'is not used'}."]
    if plan.ceiling is None:
        lines.append(f"B ({len(parts['student']):,} examples) has none.")
    else:
        lines.append(f"B's ({len(parts['student']):,}) trains the ceiling and no student.")
    chosen = _chosen_on_devel(config, plan)
    size = len(plan.validation.drawn.parts["validation"])
    lines.append(f"Devel's ({size:,}) chooses {listed(chosen) if chosen else 'nothing in this run'}.")
    models = dict.fromkeys([*(teacher.model for teacher in config.models), config.student.model])
    if read := pretraining_of(list(models)):
        lines.append(read)
    return lines


def _chosen_on_devel(config: RunConfig, plan: SeedPlan) -> list[str]:
    chosen = []
    if any(teacher.fine_tune for teacher in config.models) and config.teacher_training.keep == "best":
        chosen.append("the teachers' epochs")
    if any(student.stage.training.keep == "best" for student in plan.students):
        chosen.append("the students' epochs")
    if any(student.before_preference.weights == "devel" for student in plan.students):
        chosen.append("the teachers' weights")
    if config.labeling.calibrate is not None:
        chosen.append("the teachers' temperatures")
    ceiling = config.ceiling_training or config.student_training
    if plan.ceiling is not None and ceiling.keep == "best":
        chosen.append("the ceiling's epoch")
    return chosen
