"""The Python interface of the commands: load a model, scan it, inspect the result."""

from layeralign.api.close import align, reward
from layeralign.api.find import cases, doctor, inspect, plan, scan, screen, serve
from layeralign.api.judging import across, calibrate, judge, label, read, summary
from layeralign.api.ship import card, check, compare, export, figure, gate, report, verify, watch
from layeralign.report.notebook.runs import Scan
from layeralign.runs.frames import to_datasets, to_pandas, to_polars
from layeralign.vlm.load import load

__all__ = [
    "Scan", "across", "align", "calibrate", "card", "cases", "check", "compare", "doctor", "export", "figure",
    "gate", "inspect", "judge", "label", "load", "plan", "read", "report", "reward", "scan", "screen",
    "serve", "summary", "to_datasets", "to_pandas", "to_polars", "verify", "watch",
]  # fmt: skip
