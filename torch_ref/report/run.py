"""A parity run: the results of all cases with hardware and versions, to JSON and back."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from flax_attn.testing import Row
from flax_attn.testing.tolerances import QUANTITIES, RATIOS, TRAINED

from ..cases import CASES, Case

PACKAGES = ("jax", "flax", "optax", "torch", "numpy")


@dataclass(frozen=True)
class Options:
    """How the cases are compared: dtypes, training steps, precision of Flax's matrix products, and the random seed."""

    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16")
    steps: int = 100
    precision: str = "highest"
    seed: int = 0


@dataclass(frozen=True)
class CaseResult:
    """The result of one case.

    Attributes:
        name: of the case.
        seconds: the time it took.
        ratios: by dtype, our pooled error over PyTorch's own.
        finding: where the two sides first differ, "" where they agree.
        rows: of the report; in a summary only the worst of each dtype and quantity.
    """

    name: str
    seconds: float
    ratios: dict[str, float]
    finding: str
    rows: list[Row]

    @property
    def class_name(self) -> str:
        """The class of the case."""
        return self.name.split(",")[0]

    @property
    def ok(self) -> bool:
        """Whether every row is within its tolerance."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def worst(self, dtype: str, quantities: Sequence[str] = QUANTITIES) -> Row | None:
        """The row with the largest error, NaN counting as largest; None where nothing was compared."""
        rows = [row for row in self.rows if row.dtype == dtype and row.quantity in quantities]
        return max(rows, key=lambda row: (math.isnan(row.error), row.error), default=None)

    def torch_worst(self, dtype: str, quantities: Sequence[str] = QUANTITIES) -> float:
        """PyTorch's own largest error."""
        rows = [row for row in self.rows if row.dtype == dtype and row.quantity in quantities]
        return max((row.torch_error for row in rows), default=math.nan)

    def summary(self) -> "CaseResult":
        """The same with one row per dtype and quantity: our largest error and PyTorch's."""
        rows = []
        for dtype in dict.fromkeys(row.dtype for row in self.rows):
            for quantity in (*QUANTITIES, *TRAINED):
                row = self.worst(dtype, [quantity])
                if row is not None:
                    rows.append(replace(row, torch_error=self.torch_worst(dtype, [quantity])))
        return replace(self, rows=rows)


@dataclass(frozen=True)
class ParityRun:
    """The results of all cases, with where Flax ran ("cpu", "gpu" or "tpu"), hardware and versions."""

    platform: str
    hardware: str
    versions: dict[str, str]
    options: Options
    seconds: float
    cases: list[CaseResult]

    @property
    def is_complete(self) -> bool:
        """Whether it holds every case of the table."""
        return {case.name for case in self.cases} == {case.name for case in CASES}

    def mean_ratio(self, dtype: str) -> float:
        """The geometric mean of the cases' ratios; NaN where there are none."""
        return geometric_mean([case.ratios[dtype] for case in self.cases if dtype in case.ratios])

    def median_ratio(self, dtype: str) -> float:
        """The median of the cases' ratios, which one outlier does not move; NaN where there are none."""
        ratios = [case.ratios[dtype] for case in self.cases if dtype in case.ratios]
        return statistics.median(ratios) if ratios else math.nan

    def problems(self) -> list[str]:
        """Everything beyond its limit, one line each."""
        found = [f"{case.name}: nothing was compared: {case.finding}" for case in self.cases if not case.rows]
        found += [f"{case.name}: {row}" for case in self.cases for row in case.rows if not row.ok]
        for dtype, (mean_limit, limit) in RATIOS.items():
            found += [
                f"{case.name}: {dtype} error is {case.ratios[dtype]:.2f} times PyTorch's own, expected at most {limit}"
                for case in self.cases
                if not case.ratios.get(dtype, 0.0) <= limit
            ]
            mean = self.mean_ratio(dtype)
            if self.is_complete and mean > mean_limit:
                found.append(f"mean {dtype} error is {mean:.2f} times PyTorch's own, expected at most {mean_limit}")
        return found

    def summary(self) -> "ParityRun":
        """The same with only the worst rows."""
        return replace(self, cases=[case.summary() for case in self.cases])


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; NaN for no values."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else math.nan


def run_cases(
    cases: Sequence[Case], options: Options, jobs: int = 1, progress: Callable[[str], None] = lambda name: None
) -> ParityRun:
    """Compares the cases in ``jobs`` processes; calls ``progress`` with the name of each finished one."""
    import jax

    start = time.perf_counter()
    results = []
    with ExitStack() as stack:
        each: Iterable[CaseResult] = map(run_case, cases, repeat(options))
        if jobs > 1:
            # Spawned: a process that has run JAX must not be forked.
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            each = pool.map(run_case, cases, repeat(options))
        for result in each:
            progress(result.name)
            results.append(result)
    return ParityRun(
        platform=jax.default_backend(),
        hardware=hardware(),
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        options=options,
        seconds=time.perf_counter() - start,
        cases=results,
    )


def run_case(case: Case, options: Options) -> CaseResult:
    """Compares one case."""
    from ..pairs import make_pair

    start = time.perf_counter()
    try:
        report = make_pair(case, options.seed).compare(
            dtypes=options.dtypes, steps=options.steps, precision=options.precision, seed=options.seed
        )
    except Exception as error:  # one broken case must not hide the results of the others
        return CaseResult(case.name, time.perf_counter() - start, {}, f"{type(error).__name__}: {error}", [])
    return CaseResult(
        name=case.name,
        seconds=time.perf_counter() - start,
        ratios={dtype: report.ratio(dtype) for dtype in options.dtypes if dtype in RATIOS},
        finding=str(report.finding or ""),
        rows=list(report.rows),
    )


def hardware() -> str:
    """A description of the device that Flax runs on."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    return f"{cpu_name()}, {os.cpu_count()} cores"


def cpu_name() -> str:
    """The processor's model name, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def to_json(run: ParityRun) -> str:
    """The run as JSON; non-finite numbers become strings."""
    return json.dumps(_plain(asdict(run)), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> ParityRun:
    """The inverse of `to_json`.

    Raises:
        ValueError: not a parity run.
    """
    try:
        data = json.loads(text)
        cases = [_case(case) for case in data.pop("cases")]
        options = data.pop("options")
        options = Options(**{**options, "dtypes": tuple(options["dtypes"])})
        return ParityRun(**data, options=options, cases=cases)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"text must be a parity run as JSON, got an error on reading it: {error}") from error


def _case(data: dict[str, Any]) -> CaseResult:
    rows = [Row(**{**row, **{key: float(row[key]) for key in ("error", "torch_error")}}) for row in data.pop("rows")]
    ratios = {dtype: float(ratio) for dtype, ratio in data.pop("ratios").items()}
    return CaseResult(**data, ratios=ratios, rows=rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
