"""One HTML page that says what happened in a run, or what a plan expects: `switchyard report`.

`main` is the command. `make_page` is for programs: it takes the names of files, and returns the page, or raises a
`ReportError` that says what is wrong with one.
"""

from .command import main, make_page
from .errors import ReportError

__all__ = ["ReportError", "main", "make_page"]
