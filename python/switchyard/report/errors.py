"""What is wrong with a file, or missing on this machine."""


class ReportError(Exception):
    """One line that names the file and the key, and says what would be right."""
