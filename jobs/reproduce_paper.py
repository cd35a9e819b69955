"""The paper's tables, every cell of a grid, and a page with ours beside the paper's.

    python jobs/reproduce_paper.py [--grid configs/grid_slots.yaml ...] [--page docs/results.md] [--set key=value ...]

A grid is a run config; started again, it resumes. Each grid's section of the page is put in place of its former
one, the rest of the page stays, and `results.json` is copied to `benchmarks/results/<grid's name>.json`.
"""

import argparse
import sys
from pathlib import Path

from raw2s.arguments import with_config
from raw2s.cli import guarded
from raw2s.config import load_config

ROOT = Path(__file__).resolve().parents[1]


def reproduce(grids: list[Path], overrides: list[str], page: Path, figures: Path) -> None:
    configs = [load_config(grid, overrides) for grid in grids]  # a mistake in the last does not wait for the first
    from raw2s.models.load import quiet_transformers  # torch takes seconds; --help and mistakes do not wait  # noqa: PLC0415
    from raw2s.pipeline.run import run_pipeline  # noqa: PLC0415
    from raw2s.report.markdown import put_into  # noqa: PLC0415

    quiet_transformers()
    for config in configs:
        results = run_pipeline(config)
        figures.mkdir(parents=True, exist_ok=True)
        (figures / f"{config.name}.json").write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
        before = page.read_text(encoding="utf-8") if page.exists() else ""
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(put_into(before, results), encoding="utf-8")
        print(f"page     {page}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    grids = [ROOT / "configs" / f"grid_{task}.yaml" for task in ("slots", "scenario")]
    parser.add_argument("--grid", type=Path, action="append", help="a grid's config; may be repeated (slots, then scenario)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md", help="the page that is written")
    parser.add_argument("--figures", type=Path, default=ROOT / "benchmarks" / "results", help="where results.json is copied to")
    with_config(parser)
    arguments = parser.parse_args()
    return guarded(
        "reproduce_paper", lambda: reproduce(arguments.grid or grids, arguments.set, arguments.page, arguments.figures)
    )


if __name__ == "__main__":
    sys.exit(main())
