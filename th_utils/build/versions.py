"""What pages say of versions: where this one is, and the newest; errata; how to run it again."""

from __future__ import annotations

from th_utils.build.citation import About
from th_utils.build.publish import LATEST

RERUN = "rerun-one-chapter"  # the anchor of that section of the README
DRAFT = (
    " What you are reading is a draft: it was built from a commit that is no published version, "
    "and these addresses do not lead to it."
)


def addresses(said: About) -> str:
    """Where the versions are: this one's address, and the newest."""
    home = _home(said)
    text = (
        f"The address of this version, {said.version}, is <{said.site}/>; the newest is always at "
        f"<{home}/{LATEST}/>, and <{home}/> lists them all."
    )
    return text + DRAFT if said.draft else text


def errata(said: About) -> str:
    """The way from this list of errors, which never changes, to that of the newest version."""
    where = f"<{_home(said)}/{LATEST}/book/errata.html>"
    if said.draft:
        return (
            f"This list is that of a draft. Once a version is published, the newest list is at "
            f"{where}."
        )
    return (
        f"This list is that of version {said.version}. **The newest list is at** {where}; it "
        "is the one that counts."
    )


def rerun(said: About) -> str:
    """Where the ways to run one chapter are said, in the repository as of this build."""
    return (
        "The line below a figure leads to the chapter that made it. A chapter can be run again by "
        "itself: in Colab, by papermill, in an environment of conda or Binder, or by `make`. "
        f"[The repository's README]({said.source('README.md')}#{RERUN}) has the commands."
    )


def _home(said: About) -> str:
    """The address below which every version has a folder of its own."""
    return said.site.rpartition("/")[0]
