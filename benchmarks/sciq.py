"""Combining real, disagreeing teachers: GPT-2, medium, large and xl on half of SciQ, one set with a collapsed teacher.

    python benchmarks/sciq.py [--labels FOLDER] [--splits 50] [--out benchmarks/results/sciq.json]

FOLDER holds the weak labels of openai/weak-to-strong (`seed0_gpt2_xent.jsonl.gz`, ...). Each is written as a label file and read by
the pipeline's own reader. What is fitted is fitted on 1,000 items, as on a devel set, and everything is scored on the rest, over
random splits; the crowd methods see all items' votes and no truth. Intervals hold the middle 95 % of the splits. The best single
teacher is the best on the test part: no one could have known it. Differences to it are paired, with their standard error over items.
"""

import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from raw2s.evaluation.calibration import calibration_metrics, fit_temperature, negative_log_likelihood
from raw2s.labels.crowd import CrowdMethod, combine_votes
from raw2s.labels.label_files import class_probabilities, read_label_file
from raw2s.labels.weights import fit_weights

LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "sciq_weak_labels"
CLASSES = ("0", "1")
MODELS = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
SETS = ["seed0_xent", "seed1_xent", "seed1_logconf"]
DEVEL = 1_000
TOLERANCE = 0.005
"""How far a fitted combination may fall below the best single teacher."""
CROWD: tuple[CrowdMethod, ...] = ("majority", "dawid_skene", "mace")


def teachers_of(name: str, source: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(I, P, 2) probabilities and (P,) ground truth of one set, read as label files in the three formats in turn."""
    seed, loss = name.split("_")
    probabilities, truths = [], []
    for model, suffix in zip(MODELS, (".jsonl", ".csv", ".parquet", ".jsonl"), strict=True):
        with gzip.open(source / f"{seed}_{model}_{loss}.jsonl.gz", "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        labels = [{"id": i, "probabilities": row["soft_label"]} for i, row in enumerate(rows)]
        file = folder / f"{name}-{model}{suffix}"
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(labels), file)
        elif suffix == ".csv":
            file.write_text("id,probabilities\n" + "".join(f'{row["id"]},"{row["probabilities"]}"\n' for row in labels))
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in labels))
        by_id = class_probabilities(read_label_file(file, CLASSES))
        probabilities.append([by_id[i] for i in range(len(rows))])
        truths.append([row["gt_label"] for row in rows])
        read, written = np.array(probabilities[-1]), np.array([row["soft_label"] for row in rows])
        assert np.abs(read - written).max() < 1e-6, f"{file.name}: the reader changed the probabilities"
    assert all(truth == truths[0] for truth in truths), f"{name}: the models' rows are not the same"
    return np.array(probabilities), np.array(truths[0])


def best_accuracy_weights(probabilities_IPK: np.ndarray, truth_P: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The most accurate of 2,000 weights drawn uniformly from the simplex, and its corners: accuracy has no gradient."""
    draws = np.concatenate([np.eye(len(probabilities_IPK)), random.dirichlet(np.ones(len(probabilities_IPK)), size=2000)])
    of_class_1 = draws @ probabilities_IPK[:, :, 1]
    return draws[((of_class_1 > 0.5) == truth_P).mean(axis=1).argmax()]


def one_split(probabilities_IPK: np.ndarray, crowd: dict[str, np.ndarray], truth_P: np.ndarray, seed: int) -> dict[str, dict]:
    """Accuracy and NLL on the test part of every way to combine, and what was fitted."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(truth_P))
    devel, test = order[:DEVEL], order[DEVEL:]
    logits_IPK = np.log(np.maximum(probabilities_IPK, 1e-12))
    temperatures = [fit_temperature(own[devel], truth_P[devel]) for own in logits_IPK]
    calibrated_IPK = np.array([softmax(own / T, axis=1) for own, T in zip(logits_IPK, temperatures, strict=True)])
    weights = {
        "devel-fitted weights (NLL)": (probabilities_IPK, fit_weights(probabilities_IPK[:, devel], truth_P[devel])),
        "temperature, then devel-fitted weights (NLL)": (calibrated_IPK, fit_weights(calibrated_IPK[:, devel], truth_P[devel])),
        "devel-fitted weights (accuracy)": (
            probabilities_IPK, best_accuracy_weights(probabilities_IPK[:, devel], truth_P[devel], random),
        ),
    }  # fmt: skip
    combined = {
        **dict(zip(MODELS, probabilities_IPK, strict=True)),
        "mean": probabilities_IPK.mean(axis=0),
        "temperature, then mean": calibrated_IPK.mean(axis=0),
        **crowd,
        **{name: np.tensordot(own, teachers, axes=1) for name, (teachers, own) in weights.items()},
    }
    right = {name: (own[test].argmax(axis=1) == truth_P[test]).astype(float) for name, own in combined.items()}
    best = max((right[model] for model in MODELS), key=np.mean)
    calibration = {
        model: {
            "temperature": temperatures[i],
            "before": calibration_metrics(logits_IPK[i, test], truth_P[test]),
            "after": calibration_metrics(logits_IPK[i, test], truth_P[test], temperatures[i]),
        }
        for i, model in enumerate(MODELS)
    }
    scores = {
        name: {
            "accuracy": right[name].mean(),
            "nll": negative_log_likelihood(np.maximum(own[test], 1e-12), truth_P[test]),
            "difference_to_best": (right[name] - best).mean(),
            "standard_error_of_difference": (right[name] - best).std() / len(test) ** 0.5,
        }
        for name, own in combined.items()
    }
    return {"scores": scores, "weights": {name: own.tolist() for name, (_, own) in weights.items()}, "calibration": calibration}


def summary(values: list[float]) -> dict[str, float | list[float]]:
    low, high = np.quantile(values, [0.025, 0.975])
    return {"mean": float(np.mean(values)), "middle95": [float(low), float(high)], "least": float(np.min(values))}


def summed_up(splits: list, path: Callable[[dict], dict]) -> dict:
    """Every number under `path`, over the splits; a tree of the same shape."""

    def walk(nodes: list) -> dict:
        if isinstance(nodes[0], dict):
            return {key: walk([node[key] for node in nodes]) for key in nodes[0]}
        if isinstance(nodes[0], list):
            return {model: summary([node[i] for node in nodes]) for i, model in enumerate(MODELS)}
        return summary(nodes)

    return walk([path(split) for split in splits])


def measured(name: str, source: Path, folder: Path, splits: int) -> dict:
    probabilities_IPK, truth_P = teachers_of(name, source, folder)
    votes = [
        (p, model, int(label))
        for model, own in zip(MODELS, probabilities_IPK.argmax(axis=2), strict=True)
        for p, label in enumerate(own)
    ]
    crowd, seconds = {}, {}
    for method in CROWD:
        start = time.process_time()
        by_id = combine_votes(votes, method, len(CLASSES))
        seconds[method] = time.process_time() - start
        crowd[method] = np.array([by_id[p] for p in range(len(truth_P))])
    results = [one_split(probabilities_IPK, crowd, truth_P, seed) for seed in range(splits)]
    ways = summed_up(results, lambda split: split["scores"])
    for way in ("devel-fitted weights (NLL)", "temperature, then devel-fitted weights (NLL)"):
        difference = ways[way]["difference_to_best"]["mean"]
        assert difference >= -TOLERANCE, f"{name}: {way} is {-difference:.4f} below the best single teacher"
    return {
        "items": len(truth_P),
        "devel": DEVEL,
        "ways": ways,
        "weights": summed_up(results, lambda split: split["weights"]),
        "calibration": summed_up(results, lambda split: split["calibration"]),
        "cpu_seconds": seconds,
    }


def main() -> None:
    parser = harness.parser(__doc__, "sciq.json")
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--splits", type=int, default=50)
    arguments = parser.parse_args()
    if not arguments.labels.is_dir():
        print(f"skipped: {arguments.labels} is absent; give the folder of the weak labels with --labels")
        return
    with tempfile.TemporaryDirectory() as folder:
        sets = {name: measured(name, arguments.labels, Path(folder), arguments.splits) for name in SETS}
    environment = harness.environment("numpy", "scipy", "crowd-kit")
    harness.write(arguments.out, {"environment": environment, "split_seeds": list(range(arguments.splits)), "sets": sets})
    for name, own in sets.items():
        print(name)
        for way, scores in own["ways"].items():
            print(
                f"  {way:46} {scores['accuracy']['mean']:.4f} {scores['difference_to_best']['mean']:+.4f} nll {scores['nll']['mean']:.4f}"
            )


if __name__ == "__main__":
    main()
