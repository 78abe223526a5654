"""The command line: one file a command, each with its arguments and what it does.

Heavy imports wait until a command needs them: ``compt --help`` imports none. May import everything.
"""

from compt.cli.command_line import main as main, train_main as train_main
from compt.cli.shared import find_config as find_config, parse_options as parse_options
