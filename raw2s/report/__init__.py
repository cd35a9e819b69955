"""What a finished run shows: the closing table, and one self-contained HTML page with its figures."""

from raw2s.report.page import write_report
from raw2s.report.table import closing_table

__all__ = ["closing_table", "write_report"]
