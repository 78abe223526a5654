"""The work folder of a run: what is in it, who may use it, and what a resumed run may change.

May import: report, planning, config and below.
"""

from compt.workdir.folder import StageFolder, individual_dir
from compt.workdir.workdir import WorkDir

__all__ = ["StageFolder", "WorkDir", "individual_dir"]
