"""Read, check and freeze a config, first on the way of the data.

A file or dict goes in, a :class:`ChainConfig` comes out, or one error with every fault. Each
section is a frozen dataclass whose fields are its keys.

May import: growth, registry, interfaces and below; never planning, training or report.
"""

from compt.config.load import load_config
from compt.config.schema import ChainConfig, StageConfig

__all__ = ["ChainConfig", "StageConfig", "load_config"]
