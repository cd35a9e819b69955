"""What is left of a finished run, by its folder."""

from pathlib import Path

from raw2s.errors import ConfigError
from raw2s.results import Results


def finished_results(folder: Path) -> Results:
    """The run's results. Raises ConfigError where there are none that this version reads."""
    try:
        return Results.read(folder)
    except OSError:
        raise ConfigError(f"{folder}: no results.json here; give the folder of a finished run, <storage>/<name>") from None
    except ValueError:
        raise ConfigError(f"{folder}: its results.json was written by another version of raw2s; run the config again") from None
