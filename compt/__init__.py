"""compt: pre-train whole families of models, small to large, for a fraction of the compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compt import api as _api
from compt._version import __version__

if TYPE_CHECKING:  # "as": strict checkers let users import only what is exported so
    from compt.api import API_VERSION as API_VERSION
    from compt.chain import train as train
    from compt.errors import (
        ComptError as ComptError,
        ConfigError as ConfigError,
        DataError as DataError,
        GrowthError as GrowthError,
        LayoutError as LayoutError,
        PluginError as PluginError,
        TrainingError as TrainingError,
    )
    from compt.evaluation.evaluate import evaluate as evaluate
    from compt.growth.axes import describe as describe
    from compt.growth.matching import (
        check_growable as check_growable,
        matching as matching,
        source_block as source_block,
    )
    from compt.growth.operators import (
        AxisGrower as AxisGrower,
        ParamPair as ParamPair,
        status as status,
        tensors_of as tensors_of,
        writes_stream as writes_stream,
    )
    from compt.growth.run import grow as grow
    from compt.interfaces import (
        Architecture as Architecture,
        Batch as Batch,
        ConfigDraft as ConfigDraft,
        DataSource as DataSource,
        Draws as Draws,
        ExportFormat as ExportFormat,
        Grower as Grower,
        Growth as Growth,
        Images as Images,
        ImageSource as ImageSource,
        Layout as Layout,
        LeftOut as LeftOut,
        Member as Member,
        MemberSize as MemberSize,
        Metric as Metric,
        Objective as Objective,
        Outputs as Outputs,
        Paradigm as Paradigm,
        ParamAxes as ParamAxes,
        RunLabels as RunLabels,
        SeenData as SeenData,
        Starter as Starter,
        Status as Status,
        Suite as Suite,
        Text as Text,
        TextSource as TextSource,
        Tokens as Tokens,
        TokenSource as TokenSource,
        TokenSpan as TokenSpan,
        Tracker as Tracker,
        Transferer as Transferer,
    )
    from compt.planning.planner import plan as plan
    from compt.registry import (
        DATA as DATA,
        GROWERS as GROWERS,
        LAYOUTS as LAYOUTS,
        PARADIGMS as PARADIGMS,
        SUITES as SUITES,
        TRACKERS as TRACKERS,
        TRANSFERERS as TRANSFERERS,
        Range as Range,
    )

# No unpacking: griffe, which reads this for the documentation, would warn that it cannot see it.
__all__ = list(_api.NAMES) + ["__version__"]  # noqa: RUF005


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import compt`` and ``compt -h`` stay
    fast.
    """
    value = _api.find(name)
    if name not in _api.DEPRECATED:  # those warn every time
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
