"""What every JSON file of ours that is read again is made of."""

from pydantic import BaseModel, ConfigDict

Interval = tuple[float | None, float | None]


class Record(BaseModel):
    """What a JSON file holds: nothing but its fields, and no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
