"""Every figure of a run's report, with what the page says of it."""

from raw2s.report.doubt import draw_doubt
from raw2s.report.figures import MANY_PANELS, Drawing, History
from raw2s.report.score_figures import pgr_figure, score_figure
from raw2s.report.teachers_figure import teachers_figure
from raw2s.report.training_figures import by_model, edl_figure, training_figure
from raw2s.results import Results


def draw_all(results: Results, histories: dict[str, History]) -> list[Drawing]:
    """Every figure that these results have, in the page's order; `histories` by the models' titles."""
    return [*_scores(results), *_teachers(results), *draw_doubt(results), *_training(histories)]


def _scores(results: Results) -> list[Drawing]:
    drawings = [
        Drawing(
            name="scores",
            section="Scores",
            label="Score of every model with its 95 percent interval; the table above holds the same numbers",
            caption="Scores of all models. Squares: teachers; diamond: the ceiling, which is the student trained on ground truth; "
            "circles: students; cross: the best constant answer. A student between the dotted and the dashed line recovered part "
            "of the gap to the best teacher.",
            figure=score_figure(results),
        )
    ]
    if pgr := pgr_figure(results):
        both = len(results.seeds) > 1
        drawings.append(
            Drawing(
                name="pgr",
                section="Scores",
                label="Performance gap recovered by every student with its 95 percent intervals; the table above holds the numbers",
                caption="The share of the gap between teachers and ceiling that each student recovered. "
                + (
                    "Thick line: 95 % interval over the test examples, these trainings as they are; thin line: over the seeds of training too. "
                    if both
                    else "Line: 95 % interval over the test examples; of one seed it holds no spread of training. "
                )
                + "A hollow bar is over a gap that is noise and means nothing. What lies beyond -2 or 2 is cut there.",
                figure=pgr,
            )
        )
    return drawings


def _teachers(results: Results) -> list[Drawing]:
    if not results.by_teachers:
        return []
    return [
        Drawing(
            name="teachers",
            section="Teachers",
            label="Score of the students against the number of teachers; the table above holds the means",
            caption="Each dot is a student; lines join the means of a method's students, with their 95 % interval.",
            figure=teachers_figure(results),
        )
    ]


def _training(histories: dict[str, History]) -> list[Drawing]:
    folded = len(by_model(histories)) > MANY_PANELS
    drawings = []
    if histories:
        drawings.append(
            Drawing(
                name="training",
                section="Training",
                label="Loss against the optimizer step, a panel per trained model",
                caption="Train is the loss that the stage minimizes, as the running median over a twentieth of its steps; faint, as it was "
                "logged with the first seed. Validation, where measured, is cross entropy on ground truth. The axis is logarithmic "
                "where no loss is 0 or below. Where the stage's loss is another one (EDL, cDPO), compare the shapes and not the "
                "heights. Seeds lie over each other.",
                figure=training_figure(histories),
                folded=folded,
            )
        )
    if edl := edl_figure(histories):
        drawings.append(
            Drawing(
                name="edl",
                section="Training",
                label="Terms of the evidential loss against the optimizer step, a row per student",
                caption="The evidential students. Left: the two terms of the loss (Eq. 3, 4), not weighted, smoothed as above. Middle: "
                "what the regulariser weighs in the loss. Right: the auxiliary weight γ (Eq. 5) and the regulariser's weight λ, each as "
                "a share of its largest value.",
                figure=edl,
                folded=folded,
            )
        )
    return drawings
