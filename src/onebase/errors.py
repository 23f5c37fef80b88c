"""Errors that a user can fix: one line of cause, one line of remedy."""


class UserError(Exception):
    """A mistake or a limit outside our code.

    `cause`: what was given and what is accepted; `remedy`: what to do. The command line prints both lines and no traceback
    (unless `--debug`).
    """

    exit_status = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause}\n  {self.remedy}" if self.remedy else self.cause


class ConfigError(UserError):
    """A recipe or config that does not fit its schema."""


class DataError(UserError):
    """Input data that cannot be read or does not fit the task."""


class ArtifactError(UserError):
    """An artifact folder that is damaged, incomplete, of another kind, or cannot be written."""
